#include <stdio.h>
#include <stdlib.h>

int main(void) {
    const char *greeting = getenv("GREETING");
    printf("%s from an image that Ashlar built\n", greeting ? greeting : "nothing");
    return 0;
}
