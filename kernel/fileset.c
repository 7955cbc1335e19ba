// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * .intermezzo/<fileset> on the lower file system (doc/fileset.md): found at mount,
 * or made where the lower file system begins with the mount.
 */
#include "journal.h"

#include <linux/crc32c.h>
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/magic.h>
#include <linux/random.h>
#include <linux/uuid.h>

#include "../lib/crc32c.h"

#define IZO_FSET_DEFAULT	"fset0"

/* Small files and directories of ours on the lower file system */

struct dentry *izo_meta_lookup(struct dentry *dir, const char *name)
{
	struct qstr q = QSTR_INIT(name, strlen(name));
	struct dentry *d = lookup_noperm_unlocked(&q, dir);

	if (!IS_ERR(d) && d_is_negative(d)) {
		dput(d);
		return ERR_PTR(-ENOENT);
	}
	return d;
}

struct file *izo_meta_open(struct izo_sb *sbi, struct dentry *d, int flags)
{
	const struct path path = { .mnt = sbi->lower_mnt, .dentry = d };

	return dentry_open(&path, flags | O_NOATIME | O_LARGEFILE, current_cred());
}

/* A new one, 0700 or 0600; its dentry. */
struct dentry *izo_meta_make(struct izo_sb *sbi, struct dentry *dir, const char *name,
			     umode_t type)
{
	struct qstr q = QSTR_INIT(name, strlen(name));
	struct dentry *d, *made;
	int err;

	err = mnt_want_write(sbi->lower_mnt);
	if (err)
		return ERR_PTR(err);
	d = start_creating_noperm(dir, &q);
	if (IS_ERR(d))
		goto out;
	if (type == S_IFDIR) {
		made = izo_vfs_mkdir(d_inode(dir), d, S_IFDIR | 0700);
	} else {
		err = izo_vfs_create(d_inode(dir), d, S_IFREG | 0600);
		made = err ? ERR_PTR(err) : d;
	}
	if (IS_ERR(made)) {
		end_creating(d);
		d = made;
	} else {
		d = dget(made);
		end_creating(made);
	}
out:
	mnt_drop_write(sbi->lower_mnt);
	return d;
}

/* A file of ours that need not be there. */
int izo_meta_remove(struct izo_sb *sbi, struct dentry *dir, const char *name)
{
	struct qstr q = QSTR_INIT(name, strlen(name));
	struct dentry *d;
	int err;

	err = mnt_want_write(sbi->lower_mnt);
	if (err)
		return err;
	d = start_removing_noperm(dir, &q);
	err = PTR_ERR_OR_ZERO(d);
	if (!err) {
		err = vfs_unlink(&nop_mnt_idmap, d_inode(dir), d, NULL);
		end_removing(d);
	}
	mnt_drop_write(sbi->lower_mnt);
	return err;
}

/*
 * A file that is written in place stays where it is, so that this needs no space.  (Only
 * btrfs knows that, of files that are empty yet.)
 */
static void no_cow(struct izo_sb *sbi, struct dentry *d)
{
	const struct cred *old = override_creds(sbi->creds);
	struct file_kattr fa;

	if (mnt_want_write(sbi->lower_mnt) == 0) {
		if (vfs_fileattr_get(d, &fa) == 0 && fa.flags_valid) {
			fileattr_fill_flags(&fa, fa.flags | FS_NOCOW_FL);
			(void)vfs_fileattr_set(&nop_mnt_idmap, d, &fa);
		}
		mnt_drop_write(sbi->lower_mnt);
	}
	revert_creds(old);
}

struct file *izo_meta_create(struct izo_sb *sbi, const char *name)
{
	struct dentry *d;
	struct file *f;

	izo_meta_remove(sbi, sbi->meta, name);
	d = izo_meta_make(sbi, sbi->meta, name, S_IFREG);
	if (IS_ERR(d))
		return ERR_CAST(d);
	if (d->d_sb->s_magic == BTRFS_SUPER_MAGIC)
		no_cow(sbi, d);
	f = izo_meta_open(sbi, d, O_RDWR);
	dput(d);
	return f;
}

int izo_meta_sync(struct izo_sb *sbi)
{
	struct file *f = izo_meta_open(sbi, sbi->meta, O_RDONLY | O_DIRECTORY);
	int err;

	if (IS_ERR(f))
		return PTR_ERR(f);
	err = vfs_fsync(f, 0);
	fput(f);
	return err;
}

int izo_meta_rename(struct izo_sb *sbi, struct dentry *dir, const char *from, const char *to)
{
	struct izo_renaming r = {
		.old_parent	= dir,
		.new_parent	= dir,
		.old_name	= QSTR_INIT(from, strlen(from)),
		.new_name	= QSTR_INIT(to, strlen(to)),
	};
	int err;

	err = mnt_want_write(sbi->lower_mnt);
	if (err)
		return err;
	err = izo_start_renaming(&r);
	if (!err) {
		err = izo_vfs_rename(dir, r.old, dir, r.new, 0);
		izo_end_renaming(&r);
	}
	mnt_drop_write(sbi->lower_mnt);
	return err;
}

static int write_file(struct izo_sb *sbi, struct dentry *dir, const char *name, const void *data,
		      size_t len)
{
	struct dentry *d = izo_meta_make(sbi, dir, name, S_IFREG);
	loff_t pos = 0;
	struct file *f;
	ssize_t n = 0;

	if (IS_ERR(d))
		return PTR_ERR(d);
	f = izo_meta_open(sbi, d, O_WRONLY);
	dput(d);
	if (IS_ERR(f))
		return PTR_ERR(f);
	if (len)
		n = kernel_write(f, data, len, &pos);
	fput(f);
	if (n < 0)
		return n;
	return n == len ? 0 : -ENOSPC;
}

/* Making one */

static int make_kml(struct izo_sb *sbi, struct dentry *dir)
{
	struct kml_header *h = kzalloc(KML_HEADER_SIZE, GFP_KERNEL);
	int err;

	if (!h)
		return -ENOMEM;
	memcpy(h->magic, KML_MAGIC, sizeof(h->magic));
	h->version = cpu_to_le32(KML_VERSION);
	generate_random_uuid(h->fileset_uuid);
	generate_random_uuid(h->replica_uuid);
	h->epoch = cpu_to_le64(get_random_u64() | 1);
	h->first_offset = cpu_to_le64(KML_HEADER_SIZE);
	h->first_recno = cpu_to_le64(1);
	strscpy(h->fileset, sbi->params.fileset, sizeof(h->fileset));
	h->crc = cpu_to_le32(izo_crc32c(0, h, sizeof(*h)));
	err = write_file(sbi, dir, "kml", h, KML_HEADER_SIZE);
	kfree(h);
	return err;
}

/* The catalog of an empty tree (doc/catalog.md). */
static int make_base(struct izo_sb *sbi, struct dentry *dir)
{
	const struct inode *root = d_inode(sbi->lower_root);
	struct kml_record r = {
		.opcode = KML_MKDIR,
		.recno = 1,
		.auid = ~0u,
		.obj = { root->i_ino, root->i_generation },
		.has_attr = true,
	}, end = { .opcode = KML_CATALOG_END, .recno = 2, .auid = ~0u };
	struct timespec64 now;
	char buf[512];
	ssize_t n, more = 0;

	ktime_get_real_ts64(&now);
	izo_time_of(&r.time, &now);
	end.time = r.time;
	izo_attr_of(&r.attr, root);
	r.attr.valid = KML_A_MODE | KML_A_UID | KML_A_GID | KML_A_SIZE | KML_A_MTIME;
	n = kml_encode(buf, sizeof(buf), &r);
	if (n >= 0)
		more = kml_encode(buf + n, sizeof(buf) - n, &end);
	if (n < 0 || more < 0)
		return n < 0 ? n : more;
	return write_file(sbi, dir, "base", buf, n + more);
}

static int fill_fileset(struct izo_sb *sbi, struct dentry *dir)
{
	struct dentry *incoming;
	int err;

	err = make_base(sbi, dir);
	if (!err)
		err = make_kml(sbi, dir);
	if (!err)
		err = write_file(sbi, dir, "last_rcvd", NULL, 0);
	if (err)
		return err;
	incoming = izo_meta_make(sbi, dir, "incoming", S_IFDIR);
	if (IS_ERR(incoming))
		return PTR_ERR(incoming);
	dput(incoming);
	return 0;
}

int izo_fileset_make(struct izo_sb *sbi, struct fs_context *fc)
{
	struct dentry *meta, *dir;
	int err;

	if (!sbi->params.fileset)
		sbi->params.fileset = kstrdup(IZO_FSET_DEFAULT, GFP_KERNEL);
	if (!sbi->params.fileset)
		return -ENOMEM;
	meta = izo_meta_make(sbi, sbi->lower_root, IZO_META_DIR, S_IFDIR);
	if (IS_ERR(meta))
		return PTR_ERR(meta);
	dir = izo_meta_make(sbi, meta, sbi->params.fileset, S_IFDIR);
	dput(meta);
	if (IS_ERR(dir))
		return PTR_ERR(dir);
	sbi->meta = dir;
	err = fill_fileset(sbi, dir);
	if (err)
		errorfc(fc, "no fileset could be made");
	return err;
}

/* Finding one */

struct find_context {
	struct dir_context	ctx;
	char			name[IZO_FSET_MAX + 1];
	unsigned int		n;
};

static bool find_actor(struct dir_context *ctx, const char *name, int len, loff_t pos, u64 ino,
		       unsigned int type)
{
	struct find_context *c = container_of(ctx, struct find_context, ctx);

	if (name[0] == '.' || len > IZO_FSET_MAX)
		return true;
	memcpy(c->name, name, len);
	c->name[len] = 0;
	c->n++;
	return true;
}

/* The only one that there is. */
static int find_name(struct izo_sb *sbi, struct dentry *meta, struct fs_context *fc)
{
	struct find_context c = { .ctx.actor = find_actor };
	struct file *f = izo_meta_open(sbi, meta, O_RDONLY | O_DIRECTORY);
	int err;

	if (IS_ERR(f))
		return PTR_ERR(f);
	err = iterate_dir(f, &c.ctx);
	fput(f);
	if (err)
		return err;
	if (c.n != 1)
		return invalfc(fc, c.n ? "holds several filesets; say which with fileset=" :
					 "holds no fileset; run mkizofs first");
	sbi->params.fileset = kstrdup(c.name, GFP_KERNEL);
	return sbi->params.fileset ? 0 : -ENOMEM;
}

static int find_in(struct izo_sb *sbi, struct dentry *meta, struct fs_context *fc)
{
	struct dentry *dir;
	int err = 0;

	if (!sbi->params.fileset)
		err = find_name(sbi, meta, fc);
	if (err)
		return err;
	dir = izo_meta_lookup(meta, sbi->params.fileset);
	if (IS_ERR(dir))
		return invalfc(fc, "holds no fileset %s", sbi->params.fileset);
	sbi->meta = dir;
	return 0;
}

int izo_fileset_find(struct izo_sb *sbi, struct fs_context *fc)
{
	struct dentry *meta = izo_meta_lookup(sbi->lower_root, IZO_META_DIR);
	int err;

	if (IS_ERR(meta))
		return invalfc(fc, "holds no fileset; run mkizofs first");
	err = find_in(sbi, meta, fc);
	dput(meta);
	return err;
}
