#include <cstdio>

#include <evpl/version.hpp>

int main() { std::printf("evpl %s\n", evpl::version()); }
