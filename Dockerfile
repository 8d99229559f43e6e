# Tollgate in a container: the program, the C library it needs, and the certificates of public authorities. No shell, no root.
#
#   docker build -t tollgate .
#   docker run --rm -p 8080:8080 -v ./tollgate.toml:/etc/tollgate/tollgate.toml:ro tollgate

FROM rust:1-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends bolt-19 ca-certificates cmake curl g++ make openssl python3 \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# What was compiled stays in the cache from build to build. What BOLT has laid out is small already, and strip would break it.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    python3 bench/measure/layout.py \
 && mkdir -p /image/usr/local/bin /image/etc/ssl/certs /image/etc/tollgate \
 && cp target/release/tollgate target/release/tollgate-engine /image/usr/local/bin/ \
 && for program in /image/usr/local/bin/*; do readelf -SW $program | grep -c ' \.bolt\.' >/dev/null || strip $program; done
# The libraries that the programs name, where the loader looks for them; and the files that name resolution reads.
RUN ldd /image/usr/local/bin/* | grep -o '/[^ ]*' | grep '^/lib' | sort -u | xargs -I{} cp --parents -L {} /image \
 && cp --parents -L /lib/*/libnss_dns.so.2 /lib/*/libnss_files.so.2 /lib/*/libresolv.so.2 /image \
 && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
 && echo 'hosts: files dns' > /image/etc/nsswitch.conf \
 && echo 'tollgate:x:65532:65532::/var/lib/tollgate:/sbin/nologin' > /image/etc/passwd \
 && echo 'tollgate:x:65532:' > /image/etc/group \
 && install -d -o 65532 -g 65532 -m 0700 /image/var/lib/tollgate /image/run/tollgate \
 && install -d -m 1777 /image/tmp

FROM scratch
COPY --from=build /image /
USER 65532:65532
# server.state is a file here.
WORKDIR /var/lib/tollgate
VOLUME /var/lib/tollgate
EXPOSE 8080 9091
# SIGTERM lets open streams finish: give it more than server.grace (docker stop -t 45).
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/tollgate"]
CMD ["run", "-c", "/etc/tollgate/tollgate.toml"]
