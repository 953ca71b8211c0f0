/* Compiled as a library named libc.so that is only linked against: it makes the Android libraries
 * name the system's libc, whose functions of these names they then find. Nothing of it ships. */
void posix_memalign(void) {}
void free(void) {}
void pthread_create(void) {}
void pthread_detach(void) {}
void pthread_atfork(void) {}
