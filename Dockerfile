# The gateway in an image of its own: one static binary, root certificates and
# nothing else. It runs as a user without a name, on a file system that may be
# read-only but for /data.
#
#   docker build -t latchkey .    (buildah and podman keep HEALTHCHECK with --format docker)
#   docker run --read-only -p 8080:8080 -p 127.0.0.1:8081:8081 -v latchkey-data:/data \
#     -e LATCHKEY_ROOT_TOKEN -v ./config.yaml:/etc/latchkey/config.yaml:ro latchkey
#
# In the container's config.yaml, listen on all addresses of the container
# (":8080" and ":8081"), set admin.tls or, where the port is published to the host's
# loopback only as above, admin.allow_public_plaintext, name the operator's token
# with token_env, and keep the store below /data, such as in /data/keys: a new disk
# may have a lost+found of its own. deploy/compose has all of it put together.
#
# Without a registry, BUILD_IMAGE may be any image with Go, Git and root
# certificates, and GOFLAGS, GOPROXY and the like come from its environment.

ARG BUILD_IMAGE=golang:1.26
ARG RUN_IMAGE=scratch

FROM ${BUILD_IMAGE} AS build
WORKDIR /src

# The modules first: they change less often than the code.
COPY go.mod go.sum ./
RUN go mod download

# With .git, so that "latchkey version" names the commit.
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /out/latchkey ./cmd/latchkey

# Directories of the final image, which has no mkdir. They are copied as the content
# of another one: a directory that is copied itself loses its mode with some builders.
RUN mkdir -p /out/image/data /out/image/tmp && chmod 0700 /out/image/data && chmod 1777 /out/image/tmp

FROM ${RUN_IMAGE}
ARG VERSION=""
ARG REVISION=""
ARG SOURCE=""
LABEL org.opencontainers.image.title="latchkey" \
      org.opencontainers.image.description="An API gateway that issues, checks and revokes API keys" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"

# For upstreams with https.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/latchkey /latchkey
# A new volume at /data takes over this owner and mode.
COPY --from=build --chown=65532:65532 /out/image/ /

WORKDIR /
USER 65532:65532
VOLUME ["/data"]
EXPOSE 8080 8081
# Asks the address in the configuration. Where the file may be edited while the
# gateway runs, override it with --url: a mistake in the file would fail the check.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["/latchkey", "health", "--config", "/etc/latchkey/config.yaml"]
ENTRYPOINT ["/latchkey"]
CMD ["serve", "--config", "/etc/latchkey/config.yaml"]
