# codeformer on the CPU. Build from the checkout, then restore a folder:
#
#     docker build -f containers/cpu.Dockerfile -t codeformer .
#     docker run --rm -v "$PWD:/data" codeformer restore -w 0.7 -i /data/photos -o /data/restored
#
# The steps are README's; PyTorch comes from its own index, without the 4 GB of CUDA.
FROM python:3.12-slim
WORKDIR /src
COPY . .
RUN python3 -m venv /opt/codeformer \
    && /opt/codeformer/bin/pip install --no-cache-dir torch --index-url https://download.pytorch.org/whl/cpu \
    && /opt/codeformer/bin/pip install --no-cache-dir '.[upsample]' --extra-index-url https://download.pytorch.org/whl/cpu \
    && rm -rf /src/*
WORKDIR /data
ENV CODEFORMER_WEIGHTS=/weights
ENTRYPOINT ["/opt/codeformer/bin/codeformer"]
CMD ["--help"]
