// runs.h - fuzz targets of what a run reads: training data with and without a chat template, texts, checkpoints.
#pragma once
#include "src/base/file.h"
#include "src/run/checkpoint.h"
#include "src/run/dataset.h"
#include "src/run/trainer.h"
#include "tests/fuzz/samples.h"

#include <cstdio>

namespace fuzz {

inline Seeds rows() {
    return {
        R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]})"
        "\n",
        R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null, "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]}, {"role": "tool", "content": "4"}, {"role": "assistant", "content": "4", "weight": 0}], "tools": [{"name": "f"}]})"
        "\n",
        R"({"prompt": "a", "completion": "b"})"
        "\n",
        R"({"prompt": {"text": "q", "role": "prompter", "replies": [{"text": "b", "role": "assistant", "rank": 1},
            {"text": "a", "role": "assistant", "rank": 0, "replies": [{"text": "c", "role": "prompter", "deleted": true}]}]}})",
        R"({"message_id": "1", "parent_id": null, "message_tree_id": "1", "text": "q", "role": "prompter", "rank": null})"
        "\n"
        R"({"message_id": "2", "parent_id": "1", "message_tree_id": "1", "text": "a", "role": "assistant", "rank": 0})"
        "\n",
        R"([{"instruction": "a", "input": "b", "output": "c"}])",
        R"({"text": "abc<|im_end|>"})"
        "\n",
        R"({"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "{\"name\": 1}"}, {"from": "observation", "value": "b"}, {"from": "gpt", "value": "b"}], "system": "s"})"
        "\n",
        R"({"prompt": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "completion": [{"role": "assistant", "content": "b"}]})"
        "\n",
        R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "reasoning_content": "r", "thinking": "t", "content": "b", "train": false}, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d", "masked": true}, {"role": "assistant", "content": "e"}]})"
        "\n",
        R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{\"x\": 1}"}}, {"role": "function", "name": "f", "content": "4"}, {"role": "assistant", "content": "b"}], "functions": [{"name": "f"}], "chat_template_kwargs": {"k": 1}, "documents": [{"t": "x"}]})"
        "\n",
        R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}, {"name": "g", "arguments": [1]}]}, {"role": "tool", "content": "4"}, {"role": "tool", "tool_call_id": "c2", "content": "5"}, {"role": "assistant", "content": "b"}], "tools": "[{\"name\": \"f\"}]"})"
        "\n",
        R"({"instruction": "a", "output": "b", "history": [["c", "d"]], "system": "s"})"
        "\n"
        R"({"instruction": "a", "output": "b"})"
        "\n",
        R"({"question": "a", "answer": "b", "id": 1})"
        "\n",
        R"({"query": "a", "response": "b"})"
        "\n",
        R"({"text": "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\ny"})"
        "\n",
        R"({"prompt": "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "completion": "hello<|im_end|>"})"
        "\n",
        R"({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, {"role": "assistant", "content": "b"}]})"
        "\n",
        R"({"messages": [{"role": "judge", "content": "a"}, {"role": "assistant", "content": "b"}]})"
        "\n",
        R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0.5}]})"
        "\n",
        R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": ["f"]}]})"
        "\n",
        R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "chat_template_kwargs": {"messages": 1}})"
        "\n",
        R"({"instruction": "a", "output": "b", "history": [["c"]]})"
        "\n",
        R"({"text": "a"})"
        "\n"
        R"({"prompt": "a", "completion": "b"})"
        "\n",
        R"([{"text": "a"}, {"text": )",
        R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q1"}, {"role": "assistant", "content": "a1"}, {"role": "user", "content": "q2"}, {"role": "assistant", "content": "a2"}]})"
        "\n",
        R"({"prompt": "a", "chosen": "b", "rejected": "c"})"
        "\n",
        R"({"message_tree_id": "t", "prompt": {"text": "a", "role": "prompter", "replies": [{"text": "b", "role": "assistant", "rank": 0, "replies": []}]}})"
        "\n",
        R"({"instruction": "a", "instances": [{"input": "b", "output": "c"}, {"instruction_with_input": "d", "output": "e"}]})"
        "\n",
        R"({"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c", "rejected": "x"})"
        "\n",
        R"({"text": "<human>: a\n<bot>: b"})"
        "\n",
        R"({"text": "a", "label": "b"})"
        "\n",
        R"({"version": 1, "data": [{"question": "a", "answer": 1}, {"question": "b", "answer": true},]})",
        "{\n\"input\": \"a\",\n\"output\": \"b\"\n}\n\n{\n\"input\": \"c\",\n\"output\": \"d\"\n}",
        "{\"row_idx\": 0, \"row\": {\"conversation\": [{\"human\": \"a\", \"assistant\": \"b\"}]}},\n",
        std::string("\xFF\xFE{\0\"\0t\0e\0x\0t\0\"\0:\0\"\0a\0\"\0}\0", 26)};
}

inline void read_rows(std::string_view bytes, const char* name,
                      const std::vector<std::shared_ptr<const TokenizerImpl>>& tokenizers,
                      const std::vector<Loss>& losses) {
    const std::string path = put(name, bytes);
    for (const auto& t : tokenizers)
        for (const Loss loss : losses) {
            DatasetOptions options{.context = 64};
            options.loss = loss;
            options.skip_bad_rows = bytes.size() % 3 == 0;             // the length says how they are read
            options.long_rows = LongRows(bytes.size() / 3 % 3);
            options.system = SystemRule(bytes.size() / 9 % 3);
            if (bytes.size() % 7 == 0) options.columns = {{"question", "prompt"}, {"answer", "completion"}, {"id", ""}};
            const bool split = path.ends_with("valid.json");
            if (split) options.split = bytes.size() % 2 ? "valid" : "validation";
            try {
                const auto data = load_dataset(split ? path.substr(0, path.rfind('/')) : path, t, options);
                split_dataset(*data, 0.3f, 1);
                const std::vector<float> weights(size_t(data->size()), 0.5f);
                const auto weighted = weighted_dataset(*data, weights);
                join_datasets(std::vector{data, weighted})->fingerprint();
            } catch (const Error&) {                   // the next way of reading them may still fail in another manner
            }
        }
}

inline const std::vector<std::shared_ptr<const TokenizerImpl>>& chat_tokenizers() {
    static const std::vector<std::shared_ptr<const TokenizerImpl>> all{
        tokenizer("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% if m.tool_calls %}{{ "
                  "m.tool_calls | tojson }}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt "
                  "%}<|im_start|>assistant\n{% endif %}"),
        tokenizer("{% for m in messages %}<|im_start|>{{ m.role | upper }}\n{% if m.role == 'assistant' %}{% "
                  "generation %}{{ m.content | trim }}<|im_end|>{% endgeneration %}{% else %}{{ "
                  "m['content'].split('x')[-1] }}<|im_end|>{% endif %}{% endfor %}"),
        tokenizer("{% for t in tools or [] %}{{ t.function.name }}{% endfor %}{% for m in messages %}<|im_start|>{{ "
                  "m.role }}\n{% if m.tool_calls %}{% for c in m.tool_calls %}{{ c.id[:9] ~ c.function.name ~ ' ' ~ "
                  "c.function.arguments }}{% endfor %}"
                  "{% elif m.role == 'tool' %}{{ m.tool_call_id ~ m.content }}{% else %}{{ m.reasoning_content or '' "
                  "}}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt "
                  "%}<|im_start|>assistant\n{% endif %}"),
        // an answer is printed at its question, without a mark behind it
        tokenizer("{% for m in messages %}{% if m.role == 'user' %}Q: {{ m.content }}\nA: {% if loop.nextitem is "
                  "defined %}{{ loop.nextitem.content }}\n{% endif %}{% endif %}{% endfor %}"),
        // the prompt opens more than the history shows, and nothing but whole dialogues is printed
        tokenizer("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}\n<|im_end|>{% endfor %}{% if "
                  "add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"),
        tokenizer("{% if messages[-1].role != 'assistant' %}{{ raise_exception('no answer') }}{% endif %}{% for m in "
                  "messages %}{{ '<n>' if m.role == 'user' else '<|im_start|>' }}{{ m.content }}{{ ' <|im_end|>' if "
                  "m.role != 'user' }}{% endfor %}"),
        tokenizer("{% for i in range(messages | length) %}[{{ messages[i].role }}] {{ messages[i].content }}{% endfor "
                  "%}{% if add_generation_prompt %}[assistant] {% endif %}")};
    return all;
}

// A trainer after one step, and its checkpoint; the manifest's hash is made right, so that what it guards is read too.
inline void read_manifest(std::string_view bytes) {
    static const std::string checkpoint = folder() + "/checkpoint";
    static const auto trainer = [] {
        TrainOptions options;
        options.max_steps = 5;
        options.accumulate = 1;
        options.context = 64;
        auto t = std::make_unique<TrainerImpl>(
            create_lora(model(), {.rank = 2, .modules = "q_proj"}),
            load_dataset(put("train.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n"), tokenizer(),
                         {.context = 64}),
            options);
        t->step();
        save_checkpoint(*t, checkpoint);
        save_lora_peft(*t->lora, checkpoint + "/adapter");             // as version 0.1.0 did
        return t;
    }();
    if (bytes.empty()) return;
    Json manifest = Json::parse(bytes, "fuzz");
    if (manifest.is_object()) {
        std::erase_if(manifest.object(), [](const Json::Member& m) { return m.first == "hash"; });
        const std::string body = manifest.dump(1);
        char hash[17];
        std::snprintf(hash, sizeof hash, "%016llx",
                      static_cast<unsigned long long>(hash_bytes(body.data(), int64_t(body.size()))));
        manifest.set("hash", hash);
    }
    put("checkpoint/manifest.json", manifest.dump(1) + "\n");
    machine_of_checkpoint(checkpoint);
    load_checkpoint(*trainer, checkpoint);
}

inline Targets runs() {
    return {
        {"dataset",
         {rows,
          [](std::string_view bytes) {
              static const auto plain = tokenizer();
              read_rows(bytes, "data.jsonl", {plain}, {Loss::assistant});
              read_rows(bytes, "splits/valid.json", {plain}, {Loss::all});
          }}},
        {"table",
         {[] {
              return Seeds{"question,answer\r\n\"a, \"\"b\"\"\nc\",1\r\nd,\r\n", "text;label\na;b\n",
                           "\xEF\xBB\xBFq\ta\n"};
          },
          [](std::string_view bytes) {
              static const auto plain = tokenizer();
              read_rows(bytes, "data.csv", {plain}, {Loss::assistant});
          }}},
        {"chat_rows",
         {rows,
          [](std::string_view bytes) {
              read_rows(bytes, "chat.jsonl", chat_tokenizers(), {Loss::assistant, Loss::completion, Loss::all});
          }}},
        {"text_file",
         {[] { return Seeds{"A text.\n\nOf two <|im_start|>user\nparagraphs<|im_end|>\n"}; },
          [](std::string_view bytes) { read_rows(bytes, "data.txt", {chat_tokenizers()[0]}, {Loss::all}); }}},
        {"manifest",
         {[] {
              read_manifest("");
              const std::string now = bytes_of(folder() + "/checkpoint/manifest.json");
              Json first = Json::parse(now, "seed"), other = first;    // as version 0.1.0 wrote it, and of another run
              std::erase_if(first.object(), [](const Json::Member& m) { return m.first == "machine"; });
              first.set("model", Json().set("fingerprint", "00")).set("adapter", Json().set("dropout", 0.0));
              other.set("model", Json().set("a", Json().set("b", "c")))
                  .set("machine", Json().set("threads", int64_t(7)));
              return Seeds{now, first.dump(), other.dump()};
          },
          read_manifest}},
    };
}

}  // namespace fuzz
