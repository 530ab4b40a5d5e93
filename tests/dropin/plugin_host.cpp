// Opens plugin.so and asks it, knowing nothing of the library.
#include <cstdio>
#include <dlfcn.h>

int main() {
    void* plugin = dlopen("./plugin.so", RTLD_NOW | RTLD_LOCAL);
    if (!plugin) return std::puts(dlerror()), 1;
    const auto ask = reinterpret_cast<int (*)(const char*, const char*, char*, int)>(dlsym(plugin, "plugin_answer"));
    char answer[256] = "";
    if (!ask || ask("model.gguf", "O Romeo", answer, sizeof answer) != 0) return std::puts("no answer"), 1;
    std::printf("answer: %s\n", answer);
    return answer[0] && ask("missing.gguf", "O Romeo", answer, sizeof answer) == 1 ? 0 : 1;    // Errc::io
}
