# The trainer, the verifier and the bundled MLflow server: torch and the whole MLflow, nothing of Kubernetes.
#   docker build -f docker/trainer.Dockerfile .         (docker/build does the same with docker or buildah)
# On Linux x86-64 the plain torch wheel is the CUDA build. For the CPU build give pip a place that has the +cpu wheel:
# a folder by PIP_FIND_LINKS, or torch's own CPU index by PIP_EXTRA_INDEX_URL.
# Derive your own image with `FROM`, `USER 0`, `RUN pip install …`, `USER 65532`.
ARG BASE=python:3.11-slim-bookworm

# Only what the requirements are made of: other changes of pyproject.toml leave the layers below alone.
FROM ${BASE} AS requirements
COPY pyproject.toml /src/
RUN python3 -c "import tomllib; project = tomllib.load(open('/src/pyproject.toml', 'rb'))['project']; print(*project['dependencies'], *project['optional-dependencies']['trainer'], sep='\n')" > /requirements.txt

FROM ${BASE} AS dependencies
# pip reads these from the environment. None is kept in the image.
ARG PIP_CERT
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
COPY constraints.txt /src/
COPY --from=requirements /requirements.txt /src/
RUN python3 -m venv /opt/dropout \
 && /opt/dropout/bin/pip install --no-cache-dir --disable-pip-version-check --requirement /src/requirements.txt --constraint /src/constraints.txt \
 && /opt/dropout/bin/pip check \
 && find /opt/dropout/lib -type d \( -name tests -o -path '*/torch/test' \) -prune -exec rm -rf {} + \
 && find /opt/dropout/lib -path '*/torch/bin/*' -type f ! -name torch_shm_manager -delete

# Built on the stage above rather than copied from it: copying means hashing all of it at every build.
FROM dependencies
RUN echo 'dropout:x:65532:65532:dropout-operator:/tmp:/usr/sbin/nologin' >> /etc/passwd && echo 'dropout:x:65532:' >> /etc/group
ENV PATH=/opt/dropout/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 GIT_PYTHON_REFRESH=quiet MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true
RUN for file in /opt/dropout/lib/python3*/site-packages; do echo /opt/dropout/src > "$file/dropout.pth"; done \
 && printf '#!/opt/dropout/bin/python\nimport sys\n\nfrom dropout_trainer.cli import main\n\nsys.exit(main())\n' > /opt/dropout/bin/dropout \
 && chmod 755 /opt/dropout/bin/dropout
COPY crds/dropout_api /opt/dropout/src/dropout_api
COPY trainer/dropout_trainer /opt/dropout/src/dropout_trainer
# Fails when anything of the other half is in the image, or when a stage's libraries cannot be imported.
RUN python -c "import importlib.util as u; found = [n for n in ('kopf', 'kubernetes', 'dropout_operator') if u.find_spec(n)]; assert not found, f'not for the trainer image: {found}'; import dropout_trainer, torch, mlflow, sklearn, safetensors, mlflow.server.auth.sqlalchemy_store" \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/dropout/src
USER 65532:65532
WORKDIR /tmp
CMD ["dropout", "--help"]
ARG VERSION=dev
ARG REVISION=unknown
# Recorded with each training.
ENV DROPOUT_REVISION=${REVISION}
LABEL org.opencontainers.image.title="dropout-trainer" \
      org.opencontainers.image.description="Trainer, verifier and bundled MLflow server of DropoutTrainingJob" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/dropout-operator/dropout-operator" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
