# A peer of the benchmark as its users would ship it: one static program, nothing else, no root.
FROM scratch
ARG PROGRAM
COPY ${PROGRAM} /controller
USER 65532:65532
ENTRYPOINT ["/controller"]
