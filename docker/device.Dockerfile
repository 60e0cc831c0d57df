# What a board that takes containers needs to be measured on: Python, numpy and ONNX Runtime. Build it on the board, or for it:
#   docker build --platform linux/arm64 --file docker/device.Dockerfile --tag secateur-device docker
# and name it in evaluators/*.yaml, with the folder of the device's definition mounted at the same place:
#   device:
#     kind: ssh
#     hosts: [pi@board.local]
#     folder: /var/tmp/secateur
#     python: docker run --rm --interactive --init --network none --volume /var/tmp/secateur:/var/tmp/secateur secateur-device
ARG PYTHON_IMAGE=python:3.11-slim
FROM ${PYTHON_IMAGE}
ARG RUNTIME="onnxruntime==1.32.0"
RUN pip install --no-cache-dir "numpy>=2.0" ${RUNTIME} \
    && useradd --uid 1000 device && install --directory --owner device /var/tmp/secateur
USER device
WORKDIR /var/tmp/secateur
ENTRYPOINT ["python3"]
