"""Prints the documents of a YAML file as a JSON array: `python read_yaml.py FILE`.

With a second file, a JSON Schema, it prints instead what the schema finds wrong with the first document, a line
each. A key that is there twice is an error, which YAML says and its parsers let pass.
"""

import json
import sys
from pathlib import Path

import jsonschema_rs
import yaml


class Strict(yaml.SafeLoader):
    """Refuses keys that are there twice."""


def mapping(loader: Strict, node: yaml.MappingNode) -> dict:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"{key!r} is there twice", node.start_mark)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)

documents = list(yaml.load_all(Path(sys.argv[1]).read_text(encoding="utf-8"), Strict))
if len(sys.argv) > 2:
    schema = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    for error in jsonschema_rs.validator_for(schema).iter_errors(documents[0]):
        print("/".join(map(str, error.instance_path)), error.message)
else:
    json.dump(documents, sys.stdout)
