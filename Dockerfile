# One image for every process of StacyVM: `docker run IMAGE gateway`, `... executor`, and so on.
#
#   docker build --target runtime -t stacyvm .                    builds from source
#   docker build --target runtime-prebuilt -t stacyvm .           copies dist/ (after `make build`)
#
# The prebuilt stage fetches nothing, so it builds without a network; it comes first because
# Docker's classic builder runs every stage before the one that is asked for.
ARG BASE=debian:12-slim
ARG RUST=rust:1-slim-bookworm

FROM ${BASE} AS runtime-prebuilt
COPY dist/stacyvm dist/stacyvm-agent /usr/local/bin/
# 65532 is the unprivileged user of gateway, reaper and recorder; the executor runs as root,
# because it opens the Docker socket.
RUN mkdir -p /var/lib/stacyvm /var/lib/stacyvm-audit \
    && chown 65532:65532 /var/lib/stacyvm /var/lib/stacyvm-audit
ENV STACYVM_AGENT=/usr/local/bin/stacyvm-agent STACYVM_DATA_DIR=/var/lib/stacyvm
EXPOSE 7423
ENTRYPOINT ["stacyvm"]

FROM ${RUST} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends lld make libc6-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN make build

FROM ${BASE} AS runtime
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/dist/stacyvm /src/dist/stacyvm-agent /usr/local/bin/
RUN mkdir -p /var/lib/stacyvm /var/lib/stacyvm-audit \
    && chown 65532:65532 /var/lib/stacyvm /var/lib/stacyvm-audit
ENV STACYVM_AGENT=/usr/local/bin/stacyvm-agent STACYVM_DATA_DIR=/var/lib/stacyvm
EXPOSE 7423
ENTRYPOINT ["stacyvm"]
