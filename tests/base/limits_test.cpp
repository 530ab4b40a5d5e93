// limits_test.cpp - what containers allow, read from folders that look like /proc and /sys/fs/cgroup of either version.
#include "src/base/limits.h"
#include "src/base/threads.h"
#include "src/base/file.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#if defined(__linux__)
#include <sched.h>
#endif

namespace limits_tests {

namespace fs = std::filesystem;

struct Limits : testing::Test {
    std::string root;
    void SetUp() override {
        std::string name = (fs::temp_directory_path() / "qlora-limits-XXXXXX").string();
        ASSERT_NE(mkdtemp(name.data()), nullptr);
        root = name;
        put("proc/meminfo", "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    8000000 kB\n");
    }
    void TearDown() override { fs::remove_all(root); }
    void put(const std::string& path, const std::string& text) const {
        fs::create_directories(fs::path(root + "/" + path).parent_path());
        qlora::write_file_atomic(root + "/" + path, text);
    }
};

const int64_t available = int64_t(8'000'000) * 1024;

TEST_F(Limits, WithoutContainerTheMachineCounts) {
    EXPECT_EQ(qlora::available_memory(root), available);
    EXPECT_EQ(qlora::usable_threads(root), qlora::usable_threads(root + "/nothing"));
    EXPECT_GE(qlora::usable_threads(), 1);
    EXPECT_GT(qlora::available_memory(), 1 << 20);
    put("proc/self/cgroup", "0::/\n");                  // a group without limits
    put("sys/fs/cgroup/cpu.max", "max 100000\n");
    put("sys/fs/cgroup/memory.max", "max\n");
    put("sys/fs/cgroup/memory.current", "1000\n");
    EXPECT_EQ(qlora::available_memory(root), available);
    EXPECT_EQ(qlora::usable_threads(root), qlora::usable_threads(root + "/nothing"));
}

TEST_F(Limits, Version2) {
    put("proc/self/cgroup", "0::/pod/app\n");
    put("sys/fs/cgroup/pod/app/cpu.max", "max 100000\n");
    put("sys/fs/cgroup/pod/cpu.max", "50000 100000\n"); // the group above has the limit: half a processor is one thread
    put("sys/fs/cgroup/pod/app/memory.max", "2000000000\n");
    put("sys/fs/cgroup/pod/app/memory.current", "1500000000\n");
    put("sys/fs/cgroup/pod/app/memory.stat",
        "anon 700000000\nfile 800000000\ninactive_file 600000000\nactive_file 100000000\nfile_mapped 5\n");
    EXPECT_EQ(qlora::usable_threads(root), 1);
    EXPECT_EQ(qlora::available_memory(root), 2000000000 - (1500000000 - 700000000));
    put("sys/fs/cgroup/pod/memory.max", "900000000\n");
    put("sys/fs/cgroup/pod/memory.current", "1000000000\n");
    EXPECT_EQ(qlora::available_memory(root), 0);        // over its limit already
}

TEST_F(Limits, Version1) {
    put("proc/self/cgroup", "12:memory:/docker/1\n5:cpu,cpuacct:/docker/1\n1:name=systemd:/docker/1\n0::/system\n");
    put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "20000\n");    // as a container sees it: the host's path is not there
    put("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "3000000000\n");
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", "1000000000\n");
    put("sys/fs/cgroup/memory/memory.stat",
        "cache 5\ninactive_file 7\ntotal_inactive_file 200000000\ntotal_active_file 0\n");
    EXPECT_EQ(qlora::usable_threads(root), 1);
    EXPECT_EQ(qlora::available_memory(root), 2200000000);
    put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    EXPECT_EQ(qlora::usable_threads(root), qlora::usable_threads(root + "/nothing"));
    EXPECT_EQ(qlora::available_memory(root), available);
}

TEST_F(Limits, NonsenseIsNoLimit) {
    for (const char* text : {"", "\n", "x", "0 0", "-5 100000", "99999999999999999999999 1", "100000"}) {
        put("proc/self/cgroup", "garbage\n::\n0::\n0::no-slash\n");
        put("sys/fs/cgroup/cpu.max", text);
        put("sys/fs/cgroup/memory.max", text);
        put("sys/fs/cgroup/memory.current", "z");
        EXPECT_EQ(qlora::usable_threads(root), qlora::usable_threads(root + "/nothing")) << text;
        EXPECT_EQ(qlora::available_memory(root), available) << text;
    }
}

#if defined(__linux__)
TEST(UsableThreads, CountsTheCoresItMayUse) {
    cpu_set_t before, one;
    ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
    EXPECT_LE(qlora::usable_threads(), CPU_COUNT(&before));
    EXPECT_EQ(qlora::ThreadPool().size(), std::min(qlora::usable_threads(), qlora::ThreadPool::most));
    CPU_ZERO(&one);
    for (int c = 0; c < CPU_SETSIZE; ++c)
        if (CPU_ISSET(c, &before)) { CPU_SET(c, &one); break; }
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    EXPECT_EQ(qlora::ThreadPool().size(), 1);
    sched_setaffinity(0, sizeof before, &before);
}
#endif

}  // namespace limits_tests
