#include "gpu/images.h"

#include <dlfcn.h>

#include <fstream>
#include <iterator>
#include <stdexcept>

namespace vlmk::gpu {

const std::string& image_folder() {
    static const std::string folder = [] {
        Dl_info info{};
        if (dladdr(reinterpret_cast<const void*>(&image_folder), &info) == 0 || info.dli_fname == nullptr)
            throw std::runtime_error("the module's own file is not known to the loader");
        const std::string file = info.dli_fname;
        const size_t slash = file.rfind('/');
        return (slash == std::string::npos ? std::string(".") : file.substr(0, slash)) + "/kernels";
    }();
    return folder;
}

std::string read_image(const std::string& image, const char* extension) {
    const std::string path = image_folder() + "/" + image + extension;
    std::ifstream file(path, std::ios::binary);
    if (!file)
        throw std::runtime_error("this build has no CUDA kernels (" + path +
                                 " is missing): reinstall with VLMKERNELS_CUDA=ON");
    return std::string(std::istreambuf_iterator<char>(file), {});
}

}  // namespace vlmk::gpu
