// support.h - where the tests find their files. Test data lives outside the repository: QLORA_DATA names its folder.
#pragma once
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

// Of a fixture in ../shared/data. Tests skip when it is absent: GTEST_SKIP() << "needs ../shared/data".
inline std::string data_path(const std::string& relative) {
    const char* folder = std::getenv("QLORA_DATA");
    return std::string(folder && *folder ? folder : "../shared/data") + "/" + relative;
}

// Of a committed reference file. Tests run from the root of the checkout.
inline std::string golden_path(const std::string& relative) { return "tests/golden/" + relative; }

