// mapped_file_test.cpp - files that are cut or written to while they are mapped: an error that names them, on any
// thread; every other SIGBUS goes where it went before.
#include "src/base/file.h"
#include "src/base/threads.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace mapped_file_tests {

namespace fs = std::filesystem;

struct Maps : testing::Test {
    std::string folder;
    void SetUp() override {
        std::string name = (fs::temp_directory_path() / "qlora-map-XXXXXX").string();
        ASSERT_NE(mkdtemp(name.data()), nullptr);
        folder = name;
        qlora::write_file_atomic(path("a"), std::string(1 << 20, 'a'));
    }
    void TearDown() override { fs::remove_all(folder); }
    std::string path(const std::string& name) const { return folder + "/" + name; }
};

template <class Action>
std::string refusal(const Action& action) {
    try {
        action();
    } catch (const qlora::Error& e) {
        EXPECT_EQ(e.code, qlora::Errc::io);
        return e.what();
    }
    return "accepted";
}

// The thread sanitizer takes the zeros that are mapped over a cut file for a write beside these reads: it looks away.
__attribute__((no_sanitize("thread"))) int64_t sum_of(const uint8_t* data, int64_t count) {
    int64_t total = 0;
    for (int64_t i = 0; i < count; ++i) total += data[i];
    return total;
}

int64_t sum(const qlora::MappedFile& map, qlora::ThreadPool& pool) {
    std::vector<int64_t> parts(64);
    pool.run(64, [&](int64_t part, int) {
        const int64_t length = map.size() / 64;
        parts[size_t(part)] = sum_of(map.data() + part * length, length);
    });
    int64_t total = 0;
    for (const int64_t p : parts) total += p;
    return total;
}

TEST_F(Maps, CutFilesAreErrorsOnEveryThread) {
    qlora::guard_mapped_files();
    qlora::write_file_atomic(path("b"), std::string(1 << 20, 'b'));
    qlora::ThreadPool pool(3);
    const auto a = qlora::MappedFile::open(path("a")), b = qlora::MappedFile::open(path("b"));
    for (int round = 0; round < 20; ++round) {
        const std::string name = path("c" + std::to_string(round));
        qlora::write_file_atomic(name, std::string(1 << 20, 'c'));
        const auto c = qlora::MappedFile::open(name);
        EXPECT_EQ(sum(*c, pool), int64_t('c') << 20);
        c->check();
        fs::resize_file(name, round % 2 ? 0 : 5000);
        EXPECT_LT(sum(*c, pool), int64_t('c') << 20);   // goes on, with zeros
        EXPECT_NE(refusal([&] { c->check(); }).find(name + ": was cut from 1048576 to "), std::string::npos);
        std::ofstream(name) << std::string(1 << 20, 'c');                      // what `cp` does: cut, then written anew
        EXPECT_NE(refusal([&] { c->check(); }).find(name + ": a part of it could not be read"), std::string::npos);
        EXPECT_EQ(sum(*a, pool), int64_t('a') << 20);   // the others are as they were
        a->check();
        b->check();
    }
}

TEST_F(Maps, FilesThatWereWrittenToAreErrors) {
    const auto map = qlora::MappedFile::open(path("a"));
    map->check();
    usleep(20'000);                                     // the clock of file times is coarse
    std::fstream(path("a"), std::ios::in | std::ios::out) << "other";
    EXPECT_NE(refusal([&] { map->check(); }).find(path("a") + ": was written to while it was in use"),
              std::string::npos);
    const auto again = qlora::MappedFile::open(path("a"));
    std::ofstream(path("a"), std::ios::app) << "longer";
    EXPECT_NE(refusal([&] { again->check(); }), "accepted");
}

TEST_F(Maps, ReplacedAndRemovedFilesAreStillWhole) {
    const auto map = qlora::MappedFile::open(path("a"));
    qlora::write_file_atomic(path("a"), "another file under the same name");
    map->check();
    fs::remove(path("a"));
    map->check();
    EXPECT_EQ(map->data()[1000], 'a');
    qlora::MappedFile::open("README.md")->check();
    qlora::write_file_atomic(path("empty"), "");
    qlora::MappedFile::open(path("empty"))->check();
}

using MapsDeathTest = Maps;

// A map that is not ours, of a file that is cut.
volatile const char* foreign_map(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDWR);
    void* const at = ::mmap(nullptr, 1 << 20, PROT_READ, MAP_SHARED, fd, 0);
    EXPECT_EQ(::ftruncate(fd, 0), 0);
    return static_cast<volatile const char*>(at);
}

TEST_F(MapsDeathTest, OtherFaultsStillEndTheProcess) {
    EXPECT_EXIT({
        std::signal(SIGBUS, SIG_DFL);
        qlora::guard_mapped_files();
        (void)foreign_map(path("a"))[100];
    }, testing::KilledBySignal(SIGBUS), "");
    EXPECT_EXIT({
        std::signal(SIGBUS, SIG_DFL);
        qlora::guard_mapped_files();
        ::raise(SIGBUS);
    }, testing::KilledBySignal(SIGBUS), "");
    qlora::write_file_atomic(path("b"), std::string(1 << 20, 'b'));       // the first one has been cut
    [[maybe_unused]] const auto closed = [&] {                           // a map of ours that is gone is no longer ours
        std::signal(SIGBUS, SIG_DFL);
        qlora::guard_mapped_files();
        const volatile uint8_t* const data = qlora::MappedFile::open(path("b"))->data();
        const int fd = ::open(path("b").c_str(), O_RDWR);
        constexpr int again = MAP_SHARED | MAP_FIXED;
        if (!data || ::mmap(const_cast<uint8_t*>(data), 1 << 20, PROT_READ, again, fd, 0) == MAP_FAILED ||
            ::ftruncate(fd, 0) != 0)
            std::exit(1);
        (void)data[100];
    };
#if !defined(__SANITIZE_THREAD__)                       // which ends the process over such a mapping by itself
    EXPECT_EXIT(closed(), testing::KilledBySignal(SIGBUS), "");
#endif
}

TEST_F(MapsDeathTest, TheHandlerBeforeGetsWhatIsNotOurs) {
    const auto with_info = [&] {
        struct sigaction action {};
        action.sa_flags = SA_SIGINFO;
        action.sa_sigaction = [](int, siginfo_t* info, void*) { ::_exit(info->si_addr ? 7 : 8); };
        ::sigaction(SIGBUS, &action, nullptr);
        qlora::guard_mapped_files();
        qlora::guard_mapped_files();                    // twice is once: it does not call itself
        const auto map = qlora::MappedFile::open(path("a"));
        fs::resize_file(path("a"), 0);
        if (map->data()[100] != 0) ::_exit(9);          // ours is not passed on
        qlora::write_file_atomic(path("b"), std::string(1 << 20, 'b'));
        (void)foreign_map(path("b"))[100];
    };
    EXPECT_EXIT(with_info(), testing::ExitedWithCode(7), "");
    const auto plain = [&] {
        std::signal(SIGBUS, [](int) { ::_exit(6); });
        qlora::guard_mapped_files();
        (void)foreign_map(path("a"))[100];
    };
    EXPECT_EXIT(plain(), testing::ExitedWithCode(6), "");
    const auto ignored = [&] {
        std::signal(SIGBUS, SIG_IGN);
        qlora::guard_mapped_files();
        ::raise(SIGBUS);
        ::_exit(5);
    };
    EXPECT_EXIT(ignored(), testing::ExitedWithCode(5), "");
}

TEST_F(MapsDeathTest, NoHandlerIsInstalledUnasked) {
    const auto child = [&] {
        std::signal(SIGBUS, SIG_DFL);
        (void)qlora::Model::load("models/tiny.gguf", {.backend = qlora::Backend::cpu(1)});
        struct sigaction now {};
        ::sigaction(SIGBUS, nullptr, &now);
        ::_exit(now.sa_handler == SIG_DFL ? 4 : 3);
    };
    EXPECT_EXIT(child(), testing::ExitedWithCode(4), "");
}

}  // namespace mapped_file_tests
