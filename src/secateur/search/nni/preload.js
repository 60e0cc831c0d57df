// Loaded into NNI's node processes before anything else: the manager here, and the trial keeper on a remote host.
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const Module = require('module');
const net = require('net');

delete process.env.NODE_OPTIONS; // trials have node processes of their own, perhaps

// NNI listens on every interface and asks for no credentials: listen on loopback, whatever was asked for.
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (first, ...rest) {
    const loopback = { host: '127.0.0.1' };
    if (first !== null && typeof first === 'object' && first.path === undefined && first.fd === undefined) {
        return listen.call(this, { ...first, ...loopback }, ...rest);
    }
    if (first === undefined || first === null || typeof first === 'function' || !isNaN(first)) {
        const port = isNaN(first) || typeof first === 'function' ? 0 : Number(first ?? 0);
        return listen.call(this, { port, ...loopback }, ...[first, ...rest].filter((x) => typeof x === 'function'));
    }
    return listen.call(this, first, ...rest); // a socket in the file system
};

// NNI gives its tuner ten seconds to connect; on a busy machine its imports take longer.
global.setTimeout = new Proxy(global.setTimeout, {
    apply(wait, self, [callback, delay, ...rest]) {
        const patient = delay === 10000 && String(callback).includes('Tuner did not connect');
        return wait.call(self, callback, patient ? 120000 : delay, ...rest);
    },
});

// Remote hosts: only keys of the known_hosts file, nothing installed there, the keeper on loopback at the tunnel's end.
function careful(Client) {
    const known = (process.env.SECATEUR_NNI_HOST_KEYS ?? '').split(' ');
    const { connect, exec } = Client.prototype;
    Client.prototype.connect = function (config) {
        const hostVerifier = (key) => known.includes(crypto.createHash('sha256').update(key).digest('base64'));
        return connect.call(this, { ...config, hostVerifier });
    };
    Client.prototype.exec = function (command, ...rest) {
        if (command.endsWith('-m pip install nni --upgrade')) {
            command = command.replace('-m pip install nni --upgrade', '--version');
        } else if (command.includes('nni_manager_scripts.launch_trial_keeper ')) {
            const folder = command.split(' ').pop();
            const port = process.env.SECATEUR_NNI_REMOTE_PORT;
            const source = fs.readFileSync(__filename).toString('base64');
            command = `sed -i 's,//127.0.0.1:[0-9]*/,//127.0.0.1:${port}/,' ${folder}/launcher_config.json`
                + ` && echo ${source} | base64 -d > ${folder}/preload.js`
                + ` && export NODE_OPTIONS="--require ${folder}/preload.js" && ${command}`;
        }
        return exec.call(this, command, ...rest);
    };
}

const load = Module._load;
let patched = false;
Module._load = function (request, ...rest) {
    const loaded = load.call(this, request, ...rest);
    if (request === 'ssh2' && !patched) {
        patched = true;
        careful(loaded.Client);
    }
    return loaded;
};
