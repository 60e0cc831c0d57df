#!/bin/sh
# The board's process 1, in namespaces of its own (mounts, processes, network): it lays out the system, starts the ssh server and
# waits for a line on its standard input, or for its end: that comes with the end of the tests, whatever becomes of them. Nothing of
# the board outlives this process.
# board.sh FOLDER ROOT QEMU: FOLDER holds host and user.pub (keys) and its name is the board's; ROOT is left as it is.
set -eu
umask 022
folder=$1 root=$2 qemu=$3
name=$(basename "$folder")
mkdir "$folder/disk"
cd "$folder/disk"
mount -t tmpfs -o mode=755 tmpfs .
cd "$folder/disk"
mkdir written scratch formats root

# Every arm64 program is handed to qemu, which is opened now (F): a chroot need not hold it. P: argv[0] stays as it was.
mount -t binfmt_misc binfmt_misc formats
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
printf '%s' ":$name:M::$magic:$mask:$qemu:PF" > formats/register
trap 'echo -1 > "$folder/disk/formats/$name"' EXIT

mount -t overlay -o "lowerdir=$root,upperdir=$folder/disk/written,workdir=$folder/disk/scratch" overlay root
cd root
mount --bind /dev dev
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
ip link set lo up

# A Cortex-A72, as in a Raspberry Pi 4: older qemus show the host's cpuinfo, in which ONNX Runtime finds no processor and crashes.
for number in $(seq 0 $(($(nproc) - 1))); do
    printf 'processor\t: %s\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid\n' "$number"
    printf 'CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n'
done > ../cpuinfo
echo 'Model		: a board of the tests' >> ../cpuinfo
mount --bind ../cpuinfo proc/cpuinfo

# The packages were unpacked and never configured: what their scripts would have made, as far as a login over ssh needs it.
cat > etc/passwd << 'END'
root:*:0:0::/root:/bin/sh
sshd:*:101:65534::/run/sshd:/usr/sbin/nologin
pi:*:1000:1000::/home/pi:/bin/sh
END
cat > etc/group << 'END'
root:*:0:
pi:*:1000:
nogroup:*:65534:
END
cat > etc/ssh/sshd_config << 'END'
HostKey /etc/ssh/host
PasswordAuthentication no
Subsystem sftp /usr/lib/openssh/sftp-server
SetEnv QEMU_CPU=cortex-a72
END
mkdir -p run/sshd home/pi/.ssh
cp "$folder/host" etc/ssh/host
cp "$folder/user.pub" home/pi/.ssh/authorized_keys
chmod 600 etc/ssh/host
chown -R 1000:1000 home/pi

chroot . /usr/bin/env -i PATH=/usr/bin:/bin /usr/sbin/sshd -D -e &
echo started
head -n 1 > /dev/null
