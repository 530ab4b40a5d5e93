// json.h - JSON values (RFC 8259): a strict parser with limits, and a writer. Objects keep the order of their keys.
#pragma once
#include "src/base/error.h"

#include <utility>

namespace qlora { inline namespace QLORA_ABI {

class Json {
public:
    enum class Kind : uint8_t { null, boolean, integer, number, string, array, object };
    using Array  = std::vector<Json>;
    using Member = std::pair<std::string, Json>;
    using Object = std::vector<Member>;                // insertion order, keys unique

    Json() = default;
    Json(std::nullptr_t) {}
    Json(bool v) : kind_(Kind::boolean), bool_(v) {}
    Json(int v) : kind_(Kind::integer), int_(v) {}
    Json(int64_t v) : kind_(Kind::integer), int_(v) {}
    Json(double v) : kind_(Kind::number), num_(v) {}
    Json(const char* v) : kind_(Kind::string), str_(v) {}
    Json(std::string_view v) : kind_(Kind::string), str_(v) {}
    Json(std::string v) : kind_(Kind::string), str_(std::move(v)) {}
    Json(Array v) : kind_(Kind::array), array_(std::move(v)) {}
    Json(Object v) : kind_(Kind::object), object_(std::move(v)) {}

    Kind kind() const { return kind_; }
    bool is_null() const { return kind_ == Kind::null; }
    bool is_bool() const { return kind_ == Kind::boolean; }
    bool is_int() const { return kind_ == Kind::integer; }
    bool is_number() const { return kind_ == Kind::integer || kind_ == Kind::number; }
    bool is_string() const { return kind_ == Kind::string; }
    bool is_array() const { return kind_ == Kind::array; }
    bool is_object() const { return kind_ == Kind::object; }

    // Checked access. `where` names the file and field in the error: "config.json: hidden_size must be an integer, is a
    // string".
    bool as_bool(std::string_view where) const;
    int64_t as_int(std::string_view where) const;      // integers, and numbers such as 4.0 or 1e3 that are whole
    double as_number(std::string_view where) const;
    const std::string& as_string(std::string_view where) const;
    const Array& as_array(std::string_view where) const;
    const Object& as_object(std::string_view where) const;

    Array& array() { return array_; }                  // unchecked: the kind is known
    Object& object() { return object_; }
    const Array& array() const { return array_; }
    const Object& object() const { return object_; }
    const std::string& string() const { return str_; }
    double number() const { return kind_ == Kind::integer ? double(int_) : num_; }
    int64_t integer() const { return int_; }
    bool boolean() const { return bool_; }

    const Json* find(std::string_view key) const;      // null when absent or not an object
    Json& set(std::string key, Json value);            // adds or replaces; turns null into an object; returns *this
    Json& push(Json value);                            // turns null into an array; returns *this

    // indent < 0: one line with ", " and ": " (Python's json.dumps); otherwise that many spaces a level.
    std::string dump(int indent = -1) const;

    struct Limits { int64_t depth = 128, bytes = int64_t(1) << 30; };
    // `where` names the file in errors, with line and column
    static Json parse(std::string_view text, std::string_view where, const Limits& limits);
    static Json parse(std::string_view text, std::string_view where) { return parse(text, where, Limits{}); }

private:
    Kind kind_ = Kind::null;
    bool bool_ = false;
    int64_t int_ = 0;
    double num_ = 0;
    std::string str_;
    Array array_;
    Object object_;
};

std::string json_quote(std::string_view utf8);         // with the quotes; non-ASCII stays as it is

}}  // namespace qlora
