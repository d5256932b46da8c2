# codeformer on NVIDIA GPUs. The host needs NVIDIA's driver and its container toolkit:
#
#     docker build -f containers/cuda.Dockerfile -t codeformer:cuda .
#     docker run --rm --gpus all -v "$PWD:/data" codeformer:cuda restore -w 0.7 -i /data/photos -o /data/restored
#
# The steps are README's. PyTorch's wheels on PyPI carry CUDA, so the base image needs none.
FROM python:3.12-slim
WORKDIR /src
COPY . .
RUN python3 -m venv /opt/codeformer \
    && /opt/codeformer/bin/pip install --no-cache-dir '.[upsample]' \
    && rm -rf /src/*
WORKDIR /data
ENV CODEFORMER_WEIGHTS=/weights
ENTRYPOINT ["/opt/codeformer/bin/codeformer"]
CMD ["--help"]
