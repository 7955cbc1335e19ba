// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzz target for what a server does with the records of POST reint before the file
 * system gets them: isd_judge() against a small state.  The input is a
 * sequence of pieces, a length of two bytes before each; each becomes a record by
 * mending its frame and checksum.  A record that may be done must name paths that are absolute and
 * have a guard, and must be encodable.
 */
#include <endian.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "judge.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const guint8 peer[16] = { 1, 2, 3 };
static IsdCore core;

static void must(gboolean good)
{
	if (!good)
		abort();
}

static void add(gint64 parent, const char *name, guint64 ino, guint32 mode, guint64 version)
{
	IsdObject o = {
		.oid = { ino, 1 }, .cver = version, .aver = version,
		.attr = { .mode = mode, .nlink = 1, .size = 3 },
		.id = ino == 1 ? ISD_ROOT_ID : 0,
	};
	IsdName n = { .parent = parent, .name = (char *) name, .ver = version };

	must(isd_state_add_object(core.state, &o, NULL));
	n.id = o.id;
	must(!name || isd_state_put_name(core.state, &n, NULL));
}

/* An object that the peer made, by its own number 7. */
static void add_origin(void)
{
	struct kml_record r = {
		.opcode = KML_CREATE, .recno = 50, .obj = { 9, 1 }, .parent = { 1, 1 },
		.name = { "theirs", 6 }, .has_attr = true, .attr = { .mode = S_IFREG | 0600 },
		.has_origin = true, .origin_recno = 5, .origin_obj = { 7, 1 },
	};

	memcpy(r.origin_replica, peer, 16);
	must(isd_state_apply(core.state, &r, TRUE, NULL));
}

static void set_up(void)
{
	char dir[] = "/tmp/fuzz-judge-XXXXXX";
	int fd;

	must(mkdtemp(dir) != NULL);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	core.root_fd = core.meta_fd = core.incoming_fd = fd;
	core.is_server = TRUE;
	core.state = isd_state_open(fd, NULL);
	must(core.state && isd_state_begin(core.state, NULL));
	add(0, NULL, 1, S_IFDIR | 0755, 0);
	add(ISD_ROOT_ID, "dir", 2, S_IFDIR | 0755, 10);
	add(ISD_ROOT_ID, "old", 3, S_IFREG | 0644, 10);
	add(ISD_ROOT_ID, "new", 4, S_IFREG | 0644, 40);
	add(2, "in", 5, S_IFLNK | 0777, 10);
	add_origin();
	must(isd_state_commit(core.state, NULL));
	close(openat(fd, "01020300-0000-0000-0000-000000000000-up",
		     O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

static void mend(guint8 *rec, gsize len)
{
	struct kml_rec_tail tail = { htole32(len), htole32(KML_REC_MAGIC) };
	struct kml_rec head;

	memcpy(&head, rec, sizeof(head));
	head.len = tail.len;
	head.magic = htole16(KML_REC_MAGIC);
	head.head_len = htole16(sizeof(head));
	memcpy(rec, &head, sizeof(head));
	memcpy(rec + len - sizeof(tail), &tail, sizeof(tail));
	kml_seal(rec, le64toh(head.recno), le64toh(head.seq));
}

static void check_deed(const IsdDeed *d)
{
	gsize size = kml_encoded_size(&d->r);
	g_autofree char *buf = g_malloc(size);

	must(d->dir && d->dir[0] == '/' && d->r.dir.ptr == d->dir);
	must(d->guard.flags != 0);
	must(!d->r.tname.ptr || d->tdir || d->r.opcode != KML_RENAME);
	must(!d->r.file.ptr || d->upload >= 0);
	must(kml_encode(buf, size, &d->r) > 0);
}

static void judge(guint8 *rec, gsize len)
{
	IsdJudge j = { .core = &core, .peer = peer, .base = 20,
		       .peer_text = "01020300-0000-0000-0000-000000000000" };
	g_auto(IsdDeed) d = { .upload = -1 };
	struct kml_record r;

	mend(rec, len);
	if (kml_decode(rec, len, &r) < 0)
		return;
	if (isd_judge(&j, &r, FALSE, &d) == 0)
		check_deed(&d);
	must(j.error == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	gsize pos = 0, len;

	if (!core.state)
		set_up();
	while (size - pos >= 2) {
		g_autofree guint8 *rec = NULL;

		len = (data[pos] | data[pos + 1] << 8) & ~7;
		pos += 2;
		len = MIN(len, (size - pos) & ~(gsize) 7);
		if (len < sizeof(struct kml_rec) + sizeof(struct kml_rec_tail))
			return 0;
		rec = g_memdup2(data + pos, len);
		judge(rec, len);
		pos += len;
	}
	return 0;
}
