FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=devel
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /out/owr ./cmd/owr
RUN go run ./cmd/sbom /out/owr "${VERSION}" >/out/sbom.json
RUN mkdir -p /out/volume && mkdir -m 0700 /out/volume/data /out/volume/certs

FROM scratch
# For an origin or a Redis that speaks TLS.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/owr /owr
# What it is made of: CycloneDX. There is no shell to read it with: docker cp, or a scanner.
COPY --from=build /out/sbom.json /sbom.json
# A new volume takes the owner of the directory that it covers.
COPY --from=build --chown=65532:65532 /out/volume/ /
USER 65532:65532
VOLUME /data
ENV WR_LISTEN=:8080 WR_DATA_DIR=/data
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=6s --start-period=5s --retries=3 CMD ["/owr", "healthcheck"]
ENTRYPOINT ["/owr"]
CMD ["serve"]
