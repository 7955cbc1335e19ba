// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The place of libFuzzer where it is not there: runs a fuzz target with each
 * of the files named.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path)
{
	static uint8_t buf[1 << 20];
	FILE *f = fopen(path, "re");
	uint8_t *data;
	size_t size;

	if (!f) {
		perror(path);
		return 1;
	}
	size = fread(buf, 1, sizeof(buf), f);
	fclose(f);
	/* of exactly this size, so that a sanitizer sees reads behind it */
	data = malloc(size ? size : 1);
	if (!data)
		return 1;
	for (size_t i = 0; i < size; i++)
		data[i] = buf[i];
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	return 0;
}

int main(int argc, char **argv)
{
	int i, failed = 0;

	for (i = 1; i < argc; i++)
		failed |= replay(argv[i]);
	return failed;
}
