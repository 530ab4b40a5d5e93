#!/usr/bin/env python3
"""Renders tests/golden/family_templates.jsonl (layouts of families of models, written for the tests) with jinja2 as transformers sets it up.

    python3 tools/make_family_template_golden.py > tests/golden/family_renderings.jsonl      one line: {name, variables, expected or error}
"""
import json

from make_template_goldens import CASES, environment

for line in open("tests/golden/family_templates.jsonl"):
    template = json.loads(line)
    for messages, extra in CASES:
        variables = {"messages": messages, "bos_token": "<s>", "eos_token": "</s>", **extra}
        row = {"name": template["name"], "variables": variables}
        try:
            row["expected"] = environment().from_string(template["source"]).render(**variables)
        except Exception as e:
            row["error"] = str(e)[:80]
        print(json.dumps(row, ensure_ascii=False))
