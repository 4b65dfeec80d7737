# The host in an image of its own: one static binary, nothing else, no root.
#
#   docker build -t wasm-operator .
#
# From a binary that is built already, where no image registry can be reached (`devel/demo` and `devel/test` leave one behind):
#
#   buildah build --build-arg BINARIES=prebuilt -t localhost/wasm-operator:dev .
#
# The example guests as an image volume for the Deployment in devel/deploy: the same with `--target guests`.
ARG BINARIES=build

FROM docker.io/library/rust:1.95.0-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN rustup target add x86_64-unknown-linux-musl wasm32-wasip2 \
    && cargo build --locked --release -p wasm-operator \
    && cargo build --locked --profile guest --target wasm32-wasip2 -p ring \
    && mkdir -p /out/guests \
    && cp target/x86_64-unknown-linux-musl/release/wasm-operator /out/ \
    && cp target/wasm32-wasip2/guest/ring.wasm /out/guests/

FROM scratch AS prebuilt
COPY target/x86_64-unknown-linux-musl/release/wasm-operator /out/
COPY target/wasm32-wasip2/guest/ring.wasm /out/guests/

FROM ${BINARIES} AS binaries

FROM scratch AS guests
COPY --from=binaries /out/guests/ /

# No certificate authorities are in here: that of the API server comes with the ServiceAccount. A guest with `allowedHosts` beyond the cluster needs
# a mounted bundle, which SSL_CERT_FILE names.
FROM scratch AS runtime
COPY --from=binaries /out/wasm-operator /wasm-operator
USER 65532:65532
# Each guest that is dropped would unwind with a backtrace, at ten times the cost.
ENV RUST_LIB_BACKTRACE=0
ENTRYPOINT ["/wasm-operator"]
