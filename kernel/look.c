// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Recovery after the machine stopped where the LML was not in the lower file system's
 * journal: LOOK records for all that may differ from the log.  That is what the records since
 * the last checkpoint name (the tree may be older than they are), what is in the set of
 * changing.c (the tree may be newer), and files that were open for write.  Called by recover.c.
 *
 * Interrupted, it begins again; a second LOOK says nothing else than the first.
 */
#include "recover.h"
#include "changing.h"

#include <linux/mm.h>

static void look_record(const struct kml_record *r, void *data)
{
	izo_recover_note(data, &r->parent);
	izo_recover_note(data, &r->tparent);
	izo_recover_note(data, &r->obj);
}

static void look_openw(struct recovery *rec)
{
	struct izo_journal *j = rec->j;
	unsigned int k;

	for (k = 0; k < j->n_openw; k++) {
		const struct lml_openw *o = &j->openw[k];
		const struct kml_oid oid = { le64_to_cpu(o->ino), le32_to_cpu(o->gen) };

		if (le32_to_cpu(o->state) == LML_O_FREE)
			continue;
		j->recovered.slots++;
		izo_recover_note(rec, &oid);
	}
}

/* Directories in a directory */

struct names {
	struct dir_context	ctx;
	struct dentry		*dir;
	bool			root;
	char			*buf;		/* each with its end */
	size_t			len, size;
	bool			no_memory;
};

static bool skipped(const struct names *names, const char *name, int len)
{
	const struct qstr q = QSTR_INIT(name, len);

	return izo_name_is(&q, ".") || izo_name_is(&q, "..") ||
	       (names->root && (izo_name_is(&q, IZO_META_DIR) || izo_name_is(&q, IZO_LOST_FOUND)));
}

static bool keep_name(struct dir_context *ctx, const char *name, int len, loff_t pos, u64 ino,
		      unsigned int type)
{
	struct names *n = container_of(ctx, struct names, ctx);
	char *more;

	if ((type != DT_DIR && type != DT_UNKNOWN) || skipped(n, name, len))
		return true;
	if (n->len + len + 1 > n->size) {
		more = kvmalloc(2 * n->size + SZ_4K, GFP_KERNEL);
		if (!more) {
			n->no_memory = true;
			return false;
		}
		memcpy(more, n->buf, n->len);
		kvfree(n->buf);
		n->buf = more;
		n->size = 2 * n->size + SZ_4K;
	}
	memcpy(n->buf + n->len, name, len);
	n->buf[n->len + len] = 0;
	n->len += len + 1;
	return true;
}

static int read_names(struct recovery *rec, struct names *n)
{
	struct file *f = izo_meta_open(rec->j->sbi, n->dir, O_RDONLY | O_DIRECTORY);
	int err;

	if (IS_ERR(f))
		return PTR_ERR(f);
	err = iterate_dir(f, &n->ctx);
	fput(f);
	return n->no_memory ? -ENOMEM : err;
}

static int look_below(struct recovery *rec, struct dentry *dir, unsigned int depth);

static int look_dir(struct recovery *rec, struct dentry *dir, const char *name,
		    unsigned int depth)
{
	struct dentry *d = izo_meta_lookup(dir, name);
	int err = 0;

	if (IS_ERR(d))
		return PTR_ERR(d) == -ENOENT ? 0 : PTR_ERR(d);
	if (d_is_dir(d)) {
		const struct kml_oid oid = { d_inode(d)->i_ino, d_inode(d)->i_generation };

		rec->j->recovered.below++;
		izo_recover_note(rec, &oid);
		if (depth)
			err = look_below(rec, d, depth);
	}
	dput(d);
	return err;
}

/* Directories in dir, and so much deeper. */
static int look_below(struct recovery *rec, struct dentry *dir, unsigned int depth)
{
	struct names n = {
		.ctx.actor = keep_name,
		.dir = dir,
		.root = dir == rec->j->sbi->lower_root,
	};
	size_t pos;
	int err = read_names(rec, &n);

	for (pos = 0; pos < n.len && !err; pos += strlen(n.buf + pos) + 1)
		err = look_dir(rec, dir, n.buf + pos, depth - 1);
	kvfree(n.buf);
	return err;
}

static int look_slot(struct recovery *rec, const struct chg_slot *s)
{
	const struct kml_oid oid = { le64_to_cpu(s->ino), le32_to_cpu(s->gen) };
	struct dentry *d;
	int err = 0;

	rec->j->recovered.members++;
	izo_recover_note(rec, &oid);
	if (!s->depth)
		return 0;
	d = izo_recover_object(rec, &s->handle, &oid);
	if (d && d_is_dir(d))
		err = look_below(rec, d, min(le32_to_cpu(s->depth), 8u));
	dput(d);
	return err;
}

static int log_look(struct recovery *rec, const struct kml_oid *oid)
{
	struct kml_record r = {
		.opcode = KML_LOOK,
		.flags = KML_F_RECOVERED,
		.auid = ~0u,
		.obj = *oid,
	};
	struct timespec64 now;

	ktime_get_real_ts64(&now);
	izo_time_of(&r.time, &now);
	return izo_recover_append(rec, &r, rec->j->next_seq++);
}

int izo_look_all(struct recovery *rec)
{
	struct izo_journal *j = rec->j;
	const struct chg_slot *s;
	unsigned int pos = 0;
	int err;

	look_openw(rec);
	err = izo_kml_each(j, izo_changing_kml_offset(j), look_record, rec);
	while (!err && (s = izo_changing_next(j, &pos)))
		err = look_slot(rec, s);
	return err ?: izo_recover_each(rec, log_look);
}
