// file_test.cpp - maps and reads refuse what is not a regular file; writes appear whole or leave nothing, also on a
// full disk.
#include "src/base/file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

namespace file_tests {

namespace fs = std::filesystem;

struct Files : testing::Test {
    std::string folder;
    void SetUp() override {
        std::string name = (fs::temp_directory_path() / "qlora-file-XXXXXX").string();
        ASSERT_NE(mkdtemp(name.data()), nullptr);
        folder = name;
    }
    void TearDown() override { fs::remove_all(folder); }
    std::string path(const std::string& name) const { return folder + "/" + name; }
    size_t entries() const { return size_t(std::distance(fs::directory_iterator(folder), fs::directory_iterator())); }
};

template <class Action>
std::string refusal(const Action& action) {
    try {
        action();
    } catch (const qlora::Error& e) {
        return e.what();
    }
    return "accepted";
}

TEST_F(Files, WritesReadsAndMaps) {
    std::string text(3'000'001, 'x');
    text[1'048'576] = '\0';
    qlora::write_file_atomic(path("a"), text);
    EXPECT_EQ(qlora::read_file(path("a")), text);
    const auto map = qlora::MappedFile::open(path("a"));
    EXPECT_EQ(std::string_view(reinterpret_cast<const char*>(map->data()), size_t(map->size())), text);
    qlora::write_file_atomic(path("a"), "new");
    EXPECT_EQ(qlora::read_file(path("a")), "new");
    EXPECT_EQ(map->data()[2'999'999], 'x');             // the map still sees the file it opened
    EXPECT_EQ(entries(), 1u);
    qlora::write_file_atomic(path("empty"), "");
    EXPECT_EQ(qlora::read_file(path("empty")), "");
    EXPECT_EQ(qlora::MappedFile::open(path("empty"))->size(), 0);
}

#if defined(__linux__)
// Pages of mapped files in this process, in kB.
int64_t mapped_memory() {
    const std::string status = [] {
        std::ifstream in("/proc/self/status");
        return std::string(std::istreambuf_iterator<char>(in), {});
    }();
    return std::atoll(status.c_str() + status.find("RssFile:") + 8);
}

TEST_F(Files, ForgottenPagesAreNoMemoryInUse) {
    qlora::write_file_atomic(path("a"), std::string(32 << 20, 'x'));
    const auto map = qlora::MappedFile::open(path("a"));
    const auto sum = [&] { return std::accumulate(map->data(), map->data() + map->size(), int64_t(0)); };
    const int64_t before = mapped_memory(), expected = int64_t('x') * (32 << 20);
    EXPECT_EQ(sum(), expected);
    EXPECT_GT(mapped_memory(), before + (30 << 10));
    map->forget(map->data() + 1000, (16 << 20));       // not on a page's border: those that it touches go too
    EXPECT_LT(mapped_memory(), before + (17 << 10));
    EXPECT_GT(mapped_memory(), before + (13 << 10));   // pages may have 2 MiB
    EXPECT_EQ(sum(), expected);
    map->forget(folder.data(), 4096);                  // not of this file
    map->forget(map->data() + 1, map->size());         // nor all of this
    EXPECT_GT(mapped_memory(), before + (30 << 10));
    EXPECT_EQ(sum(), expected);
}

// What a norm between matrices costs: its few bytes map 2 MiB where the file lies in large pages.
TEST_F(Files, FewBytesThatWereReadOnceAreForgottenToo) {
    qlora::write_file_atomic(path("a"), std::string(32 << 20, 'x'));
    const auto map = qlora::MappedFile::open(path("a"));
    const int64_t before = mapped_memory();
    for (int64_t at = 1 << 20; at < map->size(); at += 2 << 20) {
        EXPECT_EQ(map->data()[at + 100], 'x');
        map->forget(map->data() + at, 200);
    }
    EXPECT_LE(mapped_memory(), before + 200);
    map->forget(map->data() + map->size() - 1, 1);     // the last page is not a whole one
    map->forget(map->data() + map->size(), 0);
}
#endif

TEST_F(Files, RefusesWhatIsNotARegularFile) {
    ASSERT_EQ(mkfifo(path("fifo").c_str(), 0600), 0);
    for (const std::string& bad : {path("fifo"), folder, path("missing"), std::string("/dev/null"), std::string("")}) {
        EXPECT_NE(refusal([&] { (void)qlora::read_file(bad); }).find("open " + bad), std::string::npos) << bad;
        EXPECT_NE(refusal([&] { qlora::MappedFile::open(bad); }).find("open " + bad), std::string::npos) << bad;
    }
    qlora::write_file_atomic(path("ten"), "0123456789");
    EXPECT_EQ(qlora::read_file(path("ten"), 10).size(), 10u);
    EXPECT_EQ(refusal([&] { (void)qlora::read_file(path("ten"), 9); }),
              "read " + path("ten") + ": 10 bytes, the limit is 9");
    EXPECT_TRUE(qlora::exists(path("ten")) && qlora::is_folder(folder) && !qlora::is_folder(path("ten")) &&
                !qlora::exists(path("missing")));
}

// As --answers /dev/stdout is written: a rename would put a file in the place of the device.
TEST_F(Files, APipeIsWrittenToNotReplaced) {
    ASSERT_EQ(mkfifo(path("pipe").c_str(), 0600), 0);
    const int reader = ::open(path("pipe").c_str(), O_RDONLY | O_NONBLOCK);
    ASSERT_GE(reader, 0);
    qlora::write_file_atomic(path("pipe"), "said");
    char got[8] = {};
    EXPECT_EQ(::read(reader, got, sizeof got), 4);
    EXPECT_STREQ(got, "said");
    ::close(reader);
    EXPECT_TRUE(fs::is_fifo(path("pipe")));
    EXPECT_EQ(entries(), 1u);

    // what is open here, by its number: the file behind it goes on
    const int file = ::open(path("out").c_str(), O_WRONLY | O_CREAT, 0600);
    ASSERT_GE(file, 0);
    ASSERT_EQ(::write(file, "begun ", 6), 6);
    qlora::write_file_atomic("/proc/self/fd/" + std::to_string(file), "ended");
    ::close(file);
    EXPECT_EQ(qlora::read_file(path("out")), "begun ended");
}

TEST_F(Files, UncommittedFilesLeaveNothing) {
    qlora::write_file_atomic(path("a"), "old");
    {
        qlora::AtomicFile file(path("a"));
        file.write("new", 3);
        EXPECT_EQ(entries(), 2u);
    }
    EXPECT_EQ(qlora::read_file(path("a")), "old");
    EXPECT_EQ(entries(), 1u);
    EXPECT_NE(refusal([&] { qlora::AtomicFile(path("no/such/folder")); }), "accepted");
    EXPECT_NE(refusal([&] { qlora::AtomicFile file(folder); }).find("is a folder"), std::string::npos);
}

TEST_F(Files, AFullDiskIsAnErrorThatLeavesNothing) {
    qlora::write_file_atomic(path("a"), "old");
    const std::string big(3 << 20, 'x');
    rlimit before {};
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    rlimit small = before;
    small.rlim_cur = 2 << 20;    // the kernel refuses larger files as it refuses them on a full disk
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    const std::string text = refusal([&] { qlora::write_file_atomic(path("a"), big); });
    setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, handler);
    EXPECT_NE(text.find("after 2097152 bytes; nothing was left behind"), std::string::npos) << text;
    EXPECT_EQ(qlora::read_file(path("a")), "old");
    EXPECT_EQ(entries(), 1u);
}

TEST_F(Files, FoldersAppearWholeOrNotAtAll) {
    {
        qlora::AtomicFolder fresh(path("model/"));
        fs::create_directory(fresh.path() + "/sub");
        qlora::write_file_atomic(fresh.path() + "/sub/x", "1");
        EXPECT_FALSE(qlora::exists(path("model")));
        fresh.commit();
    }
    EXPECT_EQ(qlora::read_file(path("model/sub/x")), "1");
    EXPECT_NE(refusal([&] { qlora::AtomicFolder again(path("model")); }).find("exists already"), std::string::npos);
    {
        qlora::AtomicFolder dropped(path("model"), true);
        qlora::write_file_atomic(dropped.path() + "/y", "2");
    }
    EXPECT_EQ(entries(), 1u);
    qlora::AtomicFolder replacing(path("model"), true);
    qlora::write_file_atomic(replacing.path() + "/y", "2");
    replacing.commit();
    EXPECT_EQ(qlora::read_file(path("model/y")), "2");
    EXPECT_FALSE(qlora::exists(path("model/sub")));
    EXPECT_EQ(entries(), 1u);
    EXPECT_NE(refusal([&] { replacing.commit(); }), "accepted");
    qlora::write_file_atomic(path("file"), "x");
    EXPECT_NE(refusal([&] { qlora::AtomicFolder no(path("file"), true); }).find("not a folder"), std::string::npos);
}

TEST(HashBytes, EveryByteLengthAndSeedCounts) {
    std::vector<uint64_t> seen;
    std::string bytes(40, '\0');
    for (int64_t n = 0; n <= 40; ++n) seen.push_back(qlora::hash_bytes(bytes.data(), n));
    for (size_t i = 0; i < bytes.size(); ++i)
        for (int bit = 0; bit < 8; ++bit) {
            bytes[i] = char(1 << bit);
            seen.push_back(qlora::hash_bytes(bytes.data(), 40));
            bytes[i] = 0;
        }
    seen.push_back(qlora::hash_bytes(bytes.data(), 40, 1));
    std::sort(seen.begin(), seen.end());
    EXPECT_EQ(std::adjacent_find(seen.begin(), seen.end()), seen.end());
}

TEST(HashBytes, PiecesGiveTheHashOfTheWhole) {
    std::string bytes;
    for (int i = 0; i < 100; ++i) bytes += char(i * 37);
    // Checkpoints hold these values: they must not change.
    EXPECT_EQ(qlora::hash_bytes(bytes.data(), 100), 0x63cc33f54eecc6aeull);
    for (int64_t cut = 0; cut <= 100; cut += 8) {
        qlora::Hash hash;
        hash.add(bytes.data(), cut);
        hash.add(bytes.data() + cut, 100 - cut);
        EXPECT_EQ(hash.value(), qlora::hash_bytes(bytes.data(), 100)) << cut;
    }
    qlora::Hash hash;
    hash.add(bytes.data(), 3);
    EXPECT_THROW(hash.add(bytes.data(), 8), qlora::Error);
}

}  // namespace file_tests
