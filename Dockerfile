# The images of sdzero; docs/images.md has the commands, the sizes and the reasons.
#
#   edge             what clients talk to: always on, no torch, no kserve
#   predictor        the lean one: serves a baked bundle with torch's libraries and none of its Python
#   predictor-eager  the full one: torch and diffusers, serves a model folder
#
# Layers lie in the order in which they change: torch's libraries, other libraries, weights, our code.

# Any image of Debian's kind with Python 3.11 to 3.13 at /usr/local/bin/python.
ARG BASE=python:3.12-slim-bookworm


FROM ${BASE} AS runtime
# Python's own modules are compiled too: nobody may write their bytecode later.
RUN echo 'sdzero:x:65532:65532:sdzero:/tmp:/usr/sbin/nologin' >>/etc/passwd \
    && echo 'sdzero:x:65532:' >>/etc/group \
    && python -m compileall -q --invalidation-mode unchecked-hash \
        -x '/(site-packages|config-.*|ensurepip|idlelib|lib2to3|pydoc_data|test|tests|tkinter|turtledemo)/' \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
ENV PATH=/opt/sdzero/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /tmp


# What each image is made of, to the version: another dependency of somebody else changes none of these files.
FROM ${BASE} AS requirements
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_SYSTEM_CERTS=1
WORKDIR /requirements
COPY constraints.txt ./
RUN python -m pip install --quiet --constraint constraints.txt uv \
    && python -m venv --without-pip /opt/cyclonedx \
    && uv pip install --quiet --python /opt/cyclonedx --constraint constraints.txt cyclonedx-bom
COPY pyproject.toml ./
ARG EDGE_EXTRAS="edge telemetry"
# Where torch comes from: empty for the package index, or what `uv pip install --torch-backend` takes, such as cpu.
ARG TORCH_BACKEND=
# hadolint ignore=SC2046
RUN pin() { uv pip compile --quiet --no-header --no-annotate --constraint constraints.txt "$@"; } \
    && pin pyproject.toml $(printf ' --extra %s' ${EDGE_EXTRAS}) -o edge.txt \
    && echo tokenizers >engine.in \
    && pin pyproject.toml engine.in --extra server --extra telemetry -o predictor.txt \
    && pin pyproject.toml --extra server --extra telemetry --extra engine \
        ${TORCH_BACKEND:+--torch-backend ${TORCH_BACKEND}} -o predictor-eager.txt \
    && find /opt/cyclonedx /requirements /usr/local/bin/uv -exec touch --no-dereference --date=1980-01-01 {} +


FROM ${BASE} AS tools
# Bytecode that is never checked against its source stays valid whatever becomes of the files' times.
ENV PYC_INVALIDATION_MODE=UNCHECKED_HASH \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON=/opt/sdzero \
    UV_SYSTEM_CERTS=1
WORKDIR /src
# hadolint ignore=DL3008
RUN apt-get update -qq && apt-get install -qq --no-install-recommends binutils >/dev/null \
    && rm -rf /var/lib/apt/lists/* \
    && python -m venv --without-pip /opt/sdzero
COPY --from=requirements /usr/local/bin/uv /usr/local/bin/
COPY --from=requirements /opt/cyclonedx /opt/cyclonedx
COPY predictor/lab/images/finish.py predictor/lab/images/libraries.py predictor/lab/images/


FROM tools AS code
COPY LICENSE README.md constraints.txt pyproject.toml ./
COPY predictor predictor/
RUN uv pip install --quiet --no-deps --build-constraint constraints.txt . \
    && rm -rf /opt/sdzero/lib/python3*/site-packages/predictor/models \
    && python -m predictor.lab.images.finish code /layers/code


FROM tools AS edge-libraries
COPY --from=requirements /requirements/edge.txt ./
RUN uv pip install --quiet --no-deps -r edge.txt \
    && python -m predictor.lab.images.finish libraries \
    && python -m predictor.lab.images.finish bill


FROM runtime AS edge
ENV SDZERO_DATA=/data \
    SDZERO_METRICS_PORT=9464
RUN install -d -o 65532 -g 65532 -m 0750 /data
COPY --from=edge-libraries /opt/sdzero /opt/sdzero
COPY --from=edge-libraries /usr/share/sdzero /usr/share/sdzero
COPY --from=code /layers/code/ /
ARG VERSION=0
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="sdzero edge" \
      org.opencontainers.image.description="APIs, keys, quotas, cache and jobs in front of a predictor that may sleep" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
EXPOSE 8080 9464
USER 65532:65532
ENTRYPOINT ["sdzero"]
CMD ["serve-edge"]


# Everything: bakes the bundle, becomes the eager predictor, and the lean one takes its pick of it.
FROM tools AS engine
ARG DEVICE=cpu
ARG TORCH_BACKEND=
COPY --from=requirements /requirements/predictor-eager.txt ./
RUN uv pip install --quiet --no-deps ${TORCH_BACKEND:+--torch-backend ${TORCH_BACKEND}} -r predictor-eager.txt \
    && if [ "${DEVICE}" = cpu ]; then python -m predictor.lab.images.libraries prune; fi \
    && python -m predictor.lab.images.finish libraries --whole \
    && python -m predictor.lab.images.finish bill \
    && python -m predictor.lab.images.libraries split /layers/torch


# A bundle that is given, or one baked of the model; none for a GPU, which no build has: that one is mounted.
FROM engine AS bundle
ARG DEVICE=cpu
ARG MODEL=predictor/models/shapes
ARG BUNDLE=
# Of our code what baking needs, so that a change elsewhere bakes nothing again.
COPY predictor/__init__.py predictor/cli.py predictor/clock.py predictor/lazily.py predictor/settings.py predictor/
COPY predictor/core predictor/core/
COPY predictor/engine predictor/engine/
COPY predictor/lab/__init__.py predictor/lab/
COPY predictor/lab/bake predictor/lab/bake/
COPY ${MODEL} /model/
# COPY wants a file at least.
COPY LICENSE ${BUNDLE} /given/
# hadolint ignore=DL3008
RUN mkdir /bundle \
    && if [ -e /given/manifest.json ]; then rm /given/LICENSE && cp -a /given/. /bundle/; \
    elif [ -n "${BUNDLE}" ]; then echo "BUNDLE: ${BUNDLE} has no manifest.json: not what sdzero bake writes" >&2 && exit 2; \
    elif [ "${DEVICE}" = cpu ]; then \
        apt-get update -qq && apt-get install -qq --no-install-recommends g++ >/dev/null \
        && PYTHONPATH="$(echo /layers/torch/opt/sdzero/lib/python3*/site-packages)" \
            /opt/sdzero/bin/python -m predictor.cli bake /model --device cpu --cache /tmp/packages --out /bundle \
        && rm -rf /tmp/* /var/lib/apt/lists/*; \
    fi


FROM tools AS predictor-libraries
COPY --from=requirements /requirements/predictor.txt ./
COPY predictor/lab/images/left_out.txt ./
RUN uv pip install --quiet --no-deps -r predictor.txt \
    && uv pip uninstall --quiet -r left_out.txt \
    && python -m predictor.lab.images.finish libraries --name-only pandas


FROM engine AS lean
ARG DEVICE=cpu
RUN python -m predictor.lab.images.libraries lean "${DEVICE}" /layers/torch /layers/lean


FROM predictor-libraries AS predictor-bill
COPY --from=lean /layers/lean/ /
RUN python -m predictor.lab.images.finish bill


FROM runtime AS predictor
ENV SDZERO_BUNDLE=/bundle
COPY --from=lean /layers/lean/ /
COPY --from=predictor-libraries /opt/sdzero /opt/sdzero
COPY --from=predictor-bill /usr/share/sdzero /usr/share/sdzero
COPY --from=bundle /bundle /bundle
COPY --from=code /layers/code/ /
ARG VERSION=0
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="sdzero predictor" \
      org.opencontainers.image.description="Draws pictures from a baked bundle, over the v2 protocol; starts in seconds" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
EXPOSE 8080 8081
USER 65532:65532
ENTRYPOINT ["sdzero"]
CMD ["serve-predictor"]


FROM runtime AS predictor-eager
ARG MODEL=predictor/models/shapes
ENV SDZERO_MODEL=/model
COPY --from=engine /layers/torch/ /
COPY --from=engine /opt/sdzero /opt/sdzero
COPY --from=engine /usr/share/sdzero /usr/share/sdzero
COPY ${MODEL} /model/
COPY --from=code /layers/code/ /
ARG VERSION=0
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="sdzero predictor, eager" \
      org.opencontainers.image.description="Draws pictures from a model folder with torch and diffusers, over the v2 protocol" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
EXPOSE 8080 8081
USER 65532:65532
ENTRYPOINT ["sdzero"]
CMD ["serve-predictor"]
