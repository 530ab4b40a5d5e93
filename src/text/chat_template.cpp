// chat_template.cpp - a parsed template as the rest of the library sees it, and the layouts for models that ship none.
#include "src/text/chat_template.h"

#include "src/text/jinja_ast.h"
#include "src/text/jinja_value.h"

#include <algorithm>
#include <mutex>

namespace qlora { inline namespace QLORA_ABI {
namespace chat_template_room {

inline bool marks_generation(const JinjaNode& n) {
    if (n.kind == JinjaNode::Kind::generation) return true;
    return std::any_of(n.kids.begin(), n.kids.end(),
                       [](const JinjaNodePtr& kid) { return kid && marks_generation(*kid); });
}

class Parsed final : public ChatTemplate {
public:
    Parsed(std::string_view source, std::string_view where) : source_(source), where_(where) {}
    RenderedTemplate render(const Json& variables, const TemplateLimits& limits) const override {
        std::call_once(once_, [&] {
            root_ = parse_jinja(source_, where_);
            marks_ = chat_template_room::marks_generation(*root_);
        });
        RenderedTemplate result = run_jinja(*root_, where_, variables, limits);
        result.marks_generation = marks_;
        return result;
    }
private:
    std::string source_, where_;
    mutable std::once_flag once_;                      // a template that cannot be read stops only who needs it
    mutable JinjaNodePtr root_;
    mutable bool marks_ = false;
};

}  // namespace chat_template_room

std::shared_ptr<const ChatTemplate> ChatTemplate::parse(std::string_view source, std::string_view where) {
    return std::make_shared<chat_template_room::Parsed>(source, where);
}

std::string fallback_chat_template(const std::function<bool(std::string_view token)>& has_token) {
    if (has_token("<|im_start|>"))
        return "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ "
               "m.content }}<|im_end|>{% endgeneration %}"
               "{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt "
               "%}<|im_start|>assistant\n{% endif %}";
    if (has_token("<|start_header_id|>"))
        return "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{% if m.role "
               "== 'assistant' %}{% generation %}{{ m.content | trim }}"
               "<|eot_id|>{% endgeneration %}{% else %}{{ m.content | trim }}<|eot_id|>{% endif %}{% endfor %}"
               "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}";
    // Zephyr's layout needs no tokens of its own; every model has an end-of-text token.
    return "{% for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ "
           "eos_token }}{% endgeneration %}"
           "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt "
           "%}<|assistant|>\n{% endif %}";
}

}}  // namespace qlora
