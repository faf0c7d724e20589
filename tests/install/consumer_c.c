#include <evpl/evpl.h>
#include <stdio.h>

int main(void) {
    printf("evpl %s\n", evpl_version());
    return 0;
}
