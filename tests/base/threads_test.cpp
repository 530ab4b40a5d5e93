// threads_test.cpp - every task runs once, on a thread that exists, for any number of threads; errors come back, the
// lowest first.
#include "src/base/threads.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

namespace threads_tests {

TEST(ThreadPool, RunsEveryNumberOnce) {
    for (int threads : {1, 2, 3, 8}) {
        qlora::ThreadPool pool(threads);
        ASSERT_EQ(pool.size(), threads);
        for (int64_t count : {0, 1, 2, 7, 1000}) {
            std::vector<std::atomic<int>> runs(static_cast<size_t>(count));
            std::atomic<bool> strange{false};
            pool.run(count, [&](int64_t i, int thread) {
                runs[size_t(i)].fetch_add(1);
                if (thread < 0 || thread >= threads) strange = true;
            });
            for (auto& r : runs) EXPECT_EQ(r.load(), 1);
            EXPECT_FALSE(strange);
        }
    }
}

TEST(ThreadPool, ThousandsOfShortRunsAndSleepsBetween) {
    qlora::ThreadPool pool(4);
    std::atomic<int64_t> sum{0};
    for (int run = 0; run < 3000; ++run) {
        pool.run(5, [&](int64_t i, int) { sum.fetch_add(i, std::memory_order_relaxed); });
        // long enough for the workers to sleep
        if (run % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(3));
    }
    EXPECT_EQ(sum.load(), 3000 * 10);
}

TEST(ThreadPool, WorkersDoTakePart) {
    qlora::ThreadPool pool(3);
    std::atomic<int> arrived{0};
    pool.run(3, [&](int64_t, int) {                     // ends only if three threads are inside at the same time
        arrived.fetch_add(1);
        while (arrived.load() < 3) std::this_thread::yield();
    });
    EXPECT_EQ(arrived.load(), 3);
}

// Of a thread that is held up the others take what it was dealt, whichever thread it is.
TEST(ThreadPool, TheTasksOfASlowThreadAreTaken) {
    for (const int64_t slow : {0, 34, 67}) {           // the first task of each of three threads
        qlora::ThreadPool pool(3);
        std::atomic<int> done{0};
        pool.run(100, [&](int64_t i, int) {
            if (i == slow)
                while (done.load() < 99) std::this_thread::yield();
            done.fetch_add(1);
        });
        EXPECT_EQ(done.load(), 100);
    }
}

TEST(ThreadPool, EachThreadReadsNeighbours) {
    qlora::ThreadPool pool(1);
    std::vector<int64_t> order;
    pool.run(50, [&](int64_t i, int) { order.push_back(i); });
    EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
    qlora::ThreadPool two(2);
    std::vector<std::atomic<int>> of(1000);
    std::atomic<int> inside{0};
    two.run(1000, [&](int64_t i, int thread) {
        of[size_t(i)] = thread;
        if (i % 500 == 0) {                            // both have begun
            inside.fetch_add(1);
            while (inside.load() < 2) std::this_thread::yield();
        }
    });
    int64_t changes = 0;
    for (size_t i = 1; i < of.size(); ++i) changes += of[i].load() != of[i - 1].load();
    EXPECT_LE(changes, 2) << "a run from the front of each share, and one from the end of the slower one's";
}

TEST(ThreadPool, TheLowestFailingNumberIsRethrown) {
    qlora::ThreadPool pool(4);
    for (int round = 0; round < 50; ++round) {
        try {
            pool.run(100, [](int64_t i, int) {
                if (i == 3) std::this_thread::sleep_for(std::chrono::microseconds(300));
                if (i >= 3) qlora::fail(qlora::Errc::numeric, "task ", i);
            });
            FAIL();
        } catch (const qlora::Error& e) {
            EXPECT_STREQ(e.what(), "task 3");
        }
    }
    std::atomic<int> after{0};
    pool.run(10, [&](int64_t, int) { after.fetch_add(1); });
    EXPECT_EQ(after.load(), 10);
}

TEST(ThreadPool, TwoCallersTakeTurns) {
    qlora::ThreadPool pool(2);
    std::atomic<int64_t> sum{0};
    std::atomic<int> inside{0};
    std::atomic<bool> overlapped{false};
    const auto caller = [&](int64_t mine) {
        for (int run = 0; run < 200; ++run) {
            int64_t only_mine = 0;
            pool.run(1, [&](int64_t, int) {
                if (inside.fetch_add(1) != 0) overlapped = true;
                only_mine = mine;
                inside.fetch_sub(1);
            });
            sum += only_mine;
        }
    };
    std::thread other(caller, 1);
    caller(1000);
    other.join();
    EXPECT_EQ(sum.load(), 200 * 1001);
    EXPECT_FALSE(overlapped);
}

TEST(ThreadPool, MisuseIsAnError) {
    EXPECT_THROW(qlora::ThreadPool(-1), qlora::Error);
    EXPECT_THROW(qlora::ThreadPool(qlora::ThreadPool::most + 1), qlora::Error);
    for (int threads : {1, 2}) {
        qlora::ThreadPool pool(threads);
        EXPECT_THROW(pool.run(int64_t(1) << 40, [](int64_t, int) {}), qlora::Error);
        EXPECT_THROW(pool.run(2, [&](int64_t, int) { pool.run(1, [](int64_t, int) {}); }), qlora::Error);
    }
}

TEST(ThreadPool, AloneStaysOnItsThread) {
    qlora::ThreadPool pool(3);
    std::atomic<int> elsewhere{0};
    const auto run = [&] {
        pool.run(200, [&, self = std::this_thread::get_id()](int64_t, int) {
            if (std::this_thread::get_id() != self) elsewhere.fetch_add(1);
            std::this_thread::sleep_for(std::chrono::microseconds(50));
        });
    };
    {
        const qlora::ThreadPool::Alone outer;
        const qlora::ThreadPool::Alone inner(false);    // does not undo the one around it
        run();
    }
    EXPECT_EQ(elsewhere.load(), 0);
    run();
    EXPECT_GT(elsewhere.load(), 0);
}

TEST(ThreadPool, AForkedChildWorksAloneAndDoesNotHang) {
    auto pool = std::make_unique<qlora::ThreadPool>(4);
    std::atomic<bool> stop{false};
    std::thread busy([&] {                              // so that its locks are held at some of the forks
        while (!stop.load()) pool->run(50, [](int64_t, int) {});
    });
    for (int fork_number = 0; fork_number < 20; ++fork_number) {
        const pid_t child = ::fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            ::alarm(20);                                // a hang is a death by SIGALRM
            int64_t sum = 0;
            for (int round = 0; round < 3; ++round) pool->run(100, [&](int64_t i, int thread) { sum += i + thread; });
            bool threw = false;
            try {
                pool->run(3, [](int64_t, int) { qlora::fail(qlora::Errc::numeric, "x"); });
            } catch (const qlora::Error&) {
                threw = true;
            }
            pool.reset();
            ::_exit(sum == 3 * 4950 && threw ? 0 : 1);
        }
        int status = 0;
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
    }
    stop = true;
    busy.join();
}

}  // namespace threads_tests
