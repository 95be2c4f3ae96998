# Build stage: Rust and a C compiler, nothing downloaded but crates.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked && strip target/release/hilum && mkdir -p /empty/data

# Last stage: no shell, no root, only the data folder is writable.
FROM gcr.io/distroless/cc-debian12
COPY --from=build /src/target/release/hilum /hilum
COPY --from=build --chown=65532:65532 /empty/data /data
USER 65532:65532
WORKDIR /
VOLUME /data
EXPOSE 3000 8080 8443 8444 8445 11112
HEALTHCHECK CMD ["/hilum", "health"]
ENTRYPOINT ["/hilum"]
CMD ["serve", "--config", "/etc/hilum/hilum.toml"]
