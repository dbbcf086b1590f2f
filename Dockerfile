# The operator's image for those with Docker or buildah; `make images` makes the same one without either.
#
#   docker build --build-arg BASE=IMAGE -t cloudmesh/operator .
#
# BASE: an image with /usr/bin/python3.11 of Debian 12, such as the base that `python -m images base` writes. Where it
# has no pip, give PIP_INDEX_URL: uv is fetched from that index first, checked against its hash in requirements.lock.
ARG BASE
FROM ${BASE} AS packages
ARG PIP_INDEX_URL=""
ARG SSL_CERT_FILE=""
USER 0
COPY requirements.lock images/install.py /build/
RUN ["/usr/bin/python3.11", "/build/install.py", "/build/requirements.lock", "/usr/local"]

FROM ${BASE}
USER 0
COPY --from=packages /usr/local /usr/local
COPY operator/cloudmesh /usr/local/lib/python3.11/dist-packages/cloudmesh
COPY operator/cloudmesh_function /usr/local/lib/python3.11/dist-packages/cloudmesh_function
COPY images/cms /usr/local/bin/cms
RUN ["/usr/bin/python3.11", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", \
     "/usr/local/lib/python3.11/dist-packages/cloudmesh", "/usr/local/lib/python3.11/dist-packages/cloudmesh_function"]
ENV LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["/usr/bin/python3.11", "-m", "cloudmesh.operator"]
