#!/usr/bin/env python3
"""What transformers answers to questions, row by row: the reference of ./evaluate on files of questions.

usage: make_accuracy_golden.py HF_FOLDER OUT_FOLDER [--shots N] [--limit N] QUESTIONS.jsonl ...

For each QUESTIONS.jsonl it writes OUT_FOLDER/NAME.expected.jsonl, in the form of ./evaluate --answers. The committed
ones are of models/tiny.gguf: ./export -m models/tiny.gguf -o FOLDER --type f32; then this script on that FOLDER,
tests/golden/questions and choices, contexts, outputs and continuations.jsonl in it; with --shots 1 on answers, mmlu,
piqa and arc.jsonl.
"""
import argparse
import json
import os
import re

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

BLANKS = " \n\t\r"


def behind(before, text):
    if not before or not text or before[-1] in BLANKS or text[0] in BLANKS:
        return text
    return " " + text


class Model:
    def __init__(self, folder):
        self.words = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def cut(self, prompt, text):
        before, whole = self.words(prompt).input_ids, self.words(prompt + text).input_ids
        common = 0
        while common < min(len(before), len(whole)) and before[common] == whole[common]:
            common += 1
        return whole, min(common, len(whole) - 1)

    @torch.no_grad()
    def log_probability(self, prompt, text):
        whole, common = self.cut(prompt, text)
        p = torch.log_softmax(self.model(torch.tensor([whole])).logits[0].double(), -1)
        return sum(float(p[i - 1, whole[i]]) for i in range(common, len(whole)))

    @torch.no_grad()
    def greedy(self, prompt, text):
        whole, common = self.cut(prompt, text)
        best = self.model(torch.tensor([whole])).logits[0].argmax(-1).tolist()
        return all(best[i - 1] == whole[i] for i in range(common, len(whole)))


def plain(text):
    return " ".join("".join(c for c in text.lower() if c.isalnum() or c.isspace()).split())


def known(row):
    """Rows as MMLU, PIQA and ARC are distributed, worded as in EleutherAI's lm-evaluation-harness."""
    if "sol1" in row:
        solutions = [row["sol1"], row["sol2"]]
        return {"query": f"Question: {row['goal']}\nAnswer:", "choices": solutions, "gold": row["label"]}
    if "answerKey" in row:
        choices = row["choices"]
        gold = choices["label"].index(row["answerKey"])
        return {"query": f"Question: {row['question']}\nAnswer:", "choices": choices["text"], "gold": gold}
    if "subject" in row and "choices" in row:
        letters = [chr(ord("A") + i) for i in range(len(row["choices"]))]
        listed = "".join(f"{letter}. {text}\n" for letter, text in zip(letters, row["choices"]))
        subject = row["subject"].replace("_", " ")
        heading = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
        query = f"{row['question'].strip()}\n{listed}Answer:"
        return {"heading": heading, "query": query, "choices": letters, "gold": row["answer"]}
    return row


def answer(model, row, before, outputs):
    if "choices" in row:
        prompt = row.get("heading", "") + before + row["query"]
        p = [model.log_probability(prompt, behind(prompt, c)) / len(behind(prompt, c).encode()) for c in row["choices"]]
        best = max(range(len(p)), key=lambda i: p[i])
        return {"choice": best, "right": best == row["gold"]}
    if "context_options" in row:
        prompts = [before + c for c in row["context_options"]]
        p = [model.log_probability(c, behind(c, row["continuation"])) for c in prompts]
        best = max(range(len(p)), key=lambda i: p[i])
        return {"choice": best, "right": best == row["gold"]}
    if "continuation" in row:
        prompt = before + row["context"]
        return {"right": model.greedy(prompt, behind(prompt, row["continuation"]))}
    prompt = before + row["input"]
    p = [model.log_probability(prompt, behind(prompt, o)) / len(behind(prompt, o).encode()) for o in outputs]
    best = max(range(len(p)), key=lambda i: p[i])
    return {"choice": best, "output": outputs[best], "right": outputs[best] == row["output"]}


def reply(model, row, shown, args):
    turns = []
    for q in shown:
        turns += [{"role": "user", "content": q["question"]}, {"role": "assistant", "content": q["answer"]}]
    turns.append({"role": "user", "content": row["question"]})
    tokens = model.words.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        out = model.model.generate(**tokens, do_sample=False, max_new_tokens=args.max_tokens)
    text = model.words.decode(out[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True)
    if "####" in row["answer"]:
        said, meant = text.split("####")[-1], row["answer"].split("####")[-1]
        numbers = [re.findall(r"-?\d[\d,.]*", part) for part in (said, meant)]
        right = bool(numbers[0]) and float(numbers[0][-1].replace(",", "")) == float(numbers[1][-1].replace(",", ""))
    else:
        first = text.strip(BLANKS).split("\n")[0]
        right = plain(row["answer"]) in (plain(text), plain(first))
    return {"reply": text, "right": right}


def solved(row):
    if "choices" in row:
        prompt, text = row["query"], row["choices"][row["gold"]]
    elif "context_options" in row:
        prompt, text = row["context_options"][row["gold"]], row["continuation"]
    else:
        prompt, text = row.get("context", row.get("input")), row.get("continuation", row.get("output"))
    return prompt + behind(prompt, text) + "\n\n"


def main():
    args = argparse.ArgumentParser()
    args.add_argument("folder")
    args.add_argument("out")
    args.add_argument("--shots", type=int, default=0)
    args.add_argument("--limit", type=int, default=0)
    args.add_argument("--max-tokens", type=int, default=16)
    args.add_argument("questions", nargs="+")
    args = args.parse_args()
    model = Model(args.folder)
    for path in args.questions:
        rows = [known(json.loads(line)) for line in open(path) if line.strip()]
        outputs = sorted({row["output"] for row in rows if "output" in row})
        free = "question" in rows[0]
        before = "" if free else "".join(solved(row) for row in rows[: args.shots])
        asked = rows[args.shots :][: args.limit or None]
        name = os.path.splitext(os.path.basename(path))[0]
        with open(os.path.join(args.out, name + ".expected.jsonl"), "w") as out:
            for row in asked:
                said = reply(model, row, rows[: args.shots], args) if free else answer(model, row, before, outputs)
                out.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
