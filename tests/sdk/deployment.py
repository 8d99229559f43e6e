"""Judges files for other programs by those programs' own rules: `deployment.py kubernetes FILE` or `deployment.py queries FILE` (a JSON list of PromQL)."""

import json
import sys


def kubernetes(path):
    import kubernetes_validate
    import yaml

    with open(path, encoding="utf-8") as file:
        documents = [document for document in yaml.safe_load_all(file) if document]
    for document in documents:
        # `sleep` in a life cycle has been there since 1.30.
        kubernetes_validate.validate(document, "1.30", strict=True)
    print(" ".join(document["kind"] for document in documents))


def queries(path):
    import promql_parser

    with open(path, encoding="utf-8") as file:
        for query in json.load(file):
            # Grafana puts a duration there.
            promql_parser.parse(query.replace("$__rate_interval", "1m"))


{"kubernetes": kubernetes, "queries": queries}[sys.argv[1]](sys.argv[2])
