// SPDX-License-Identifier: GPL-2.0-or-later
/* The state database: what each record does to it, on a server and on a client. */
#include "fixture.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void apply(Fixture *f, const struct kml_record *r)
{
	assert_ok(isd_state_apply(f->s, r, TRUE, E));
}

static void apply_client(Fixture *f, const struct kml_record *r)
{
	assert_ok(isd_state_apply(f->s, r, FALSE, E));
}

static gint64 make(Fixture *f, unsigned int opcode, guint64 ino, struct kml_oid parent,
		   const char *name)
{
	struct kml_record r = rec(f, opcode, ino, parent, name);
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	apply(f, &r);
	assert_ok(isd_state_by_oid(f->s, oid(ino), &o, &found, E));
	g_assert_true(found);
	return o.id;
}

/* The inode number that a name leads to, 0 for none. */
static guint64 at(Fixture *f, gint64 parent, const char *name)
{
	g_auto(IsdName) n = { 0 };
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	assert_ok(isd_state_lookup(f->s, parent, name, &n, &found, E));
	if (!found)
		return 0;
	assert_ok(isd_state_by_id(f->s, n.id, &o, &found, E));
	g_assert_true(found);
	return o.oid.ino;
}

static gboolean get(Fixture *f, guint64 ino, IsdObject *ret)
{
	gboolean found;

	isd_object_clear(ret);
	assert_ok(isd_state_by_oid(f->s, oid(ino), ret, &found, E));
	return found;
}

static gboolean is_there(Fixture *f, guint64 ino)
{
	g_auto(IsdObject) o = { 0 };

	return get(f, ino, &o);
}

static void assert_counts(Fixture *f, guint64 objects, guint64 bytes)
{
	guint64 n, b;

	assert_ok(isd_state_counts(f->s, &n, &b, E));
	g_assert_cmpuint(n, ==, objects);
	g_assert_cmpuint(b, ==, bytes);
}

static void test_root(void)
{
	Fixture f;
	g_auto(IsdObject) o = { 0 };
	g_autofree char *path = NULL;
	gboolean found, empty;

	fixture_set_up(&f);
	assert_ok(isd_state_by_oid(f.s, f.root, &o, &found, E));
	g_assert_true(found);
	g_assert_cmpint(o.id, ==, ISD_ROOT_ID);
	g_assert_true(S_ISDIR(o.attr.mode));
	assert_ok((path = isd_state_path(f.s, ISD_ROOT_ID, E)) != NULL);
	g_assert_cmpstr(path, ==, "/");
	assert_ok(isd_state_is_empty_dir(f.s, ISD_ROOT_ID, &empty, E));
	g_assert_true(empty);
	assert_counts(&f, 1, 0);
	fixture_tear_down(&f);
}

static void test_make(void)
{
	Fixture f;
	struct kml_record r;
	g_auto(IsdObject) o = { 0 };
	g_autofree char *path = NULL;
	gint64 d, e;

	fixture_set_up(&f);
	d = make(&f, KML_MKDIR, 10, f.root, "d");
	e = make(&f, KML_MKDIR, 11, oid(10), "a\nb\377");
	r = rec(&f, KML_SYMLINK, 12, oid(11), "l");
	r.link = str("to/there");
	r.has_ptime = true;
	r.ptime = (struct kml_time) { 4711, 3 };
	apply(&f, &r);
	g_assert_cmpuint(at(&f, d, "a\nb\377"), ==, 11);
	g_assert_true(get(&f, 12, &o));
	g_assert_cmpmem(o.link, o.link_len, "to/there", 8);
	g_assert_cmpuint(o.cver, ==, r.recno);
	g_assert_cmpuint(o.attr.ctime.nsec, ==, 2);
	g_assert_true(get(&f, 11, &o));
	g_assert_cmpint(o.attr.mtime.sec, ==, 4711);
	assert_ok((path = isd_state_path(f.s, e, E)) != NULL);
	g_assert_cmpstr(path, ==, "/d/a\nb\377");
	fixture_tear_down(&f);
}

static void test_repeated(void)
{
	Fixture f;
	struct kml_record r;
	guint64 recno;

	fixture_set_up(&f);
	make(&f, KML_CREATE, 20, f.root, "a");
	r = rec(&f, KML_UNLINK, 20, f.root, "a");
	apply(&f, &r);
	r = rec(&f, KML_CREATE, 20, f.root, "a");
	r.recno = 1;
	apply(&f, &r);
	g_assert_false(is_there(&f, 20));
	assert_counts(&f, 1, 0);
	fixture_reopen(&f);
	assert_ok(isd_state_get_u64(f.s, "local_recno", &recno, E));
	g_assert_cmpuint(recno, ==, 2);
	fixture_tear_down(&f);
}

static struct kml_record unlink_rec(Fixture *f, guint64 ino, const char *name, guint nlink)
{
	struct kml_record r = rec(f, KML_UNLINK, ino, f->root, name);

	r.old = r.obj;
	r.old_attr = r.attr;
	r.old_attr.nlink = nlink;
	r.has_old = true;
	r.has_attr = false;
	return r;
}

static void test_links(void)
{
	Fixture f;
	struct kml_record r;
	g_auto(IsdObject) o = { 0 };

	fixture_set_up(&f);
	make(&f, KML_CREATE, 20, f.root, "a");
	r = rec(&f, KML_LINK, 20, f.root, "a");
	r.tparent = f.root;
	r.tname = str("b");
	r.attr.nlink = 2;
	apply(&f, &r);
	g_assert_cmpuint(at(&f, ISD_ROOT_ID, "b"), ==, 20);
	r = unlink_rec(&f, 20, "a", 1);
	apply(&f, &r);
	g_assert_true(get(&f, 20, &o));
	g_assert_cmpuint(o.attr.nlink, ==, 1);
	g_assert_cmpint(o.attr.ctime.sec, ==, r.old_attr.ctime.sec);
	r = unlink_rec(&f, 20, "b", 0);
	apply(&f, &r);
	g_assert_false(is_there(&f, 20));
	fixture_tear_down(&f);
}

static struct kml_record rename_rec(Fixture *f, guint64 ino, struct kml_oid p, const char *name,
				    struct kml_oid t, const char *tname, guint64 old)
{
	struct kml_record r = rec(f, KML_RENAME, ino, p, name);

	r.tparent = t;
	r.tname = str(tname);
	r.has_old = old != 0;
	r.old = oid(old);
	return r;
}

static void test_rename(void)
{
	Fixture f;
	struct kml_record r;
	gint64 d;

	fixture_set_up(&f);
	d = make(&f, KML_MKDIR, 10, f.root, "d");
	make(&f, KML_CREATE, 20, f.root, "a");
	make(&f, KML_CREATE, 21, oid(10), "b");
	r = rename_rec(&f, 20, f.root, "a", oid(10), "b", 21);
	apply(&f, &r);
	g_assert_cmpuint(at(&f, ISD_ROOT_ID, "a"), ==, 0);
	g_assert_cmpuint(at(&f, d, "b"), ==, 20);
	g_assert_false(is_there(&f, 21));
	assert_counts(&f, 3, 0);
	fixture_tear_down(&f);
}

static void test_exchange(void)
{
	Fixture f;
	struct kml_record r;
	gint64 d;

	fixture_set_up(&f);
	d = make(&f, KML_MKDIR, 10, f.root, "d");
	make(&f, KML_CREATE, 20, f.root, "a");
	make(&f, KML_CREATE, 21, oid(10), "b");
	r = rename_rec(&f, 20, f.root, "a", oid(10), "b", 21);
	r.flags = KML_F_EXCHANGE;
	apply(&f, &r);
	g_assert_cmpuint(at(&f, ISD_ROOT_ID, "a"), ==, 21);
	g_assert_cmpuint(at(&f, d, "b"), ==, 20);
	assert_counts(&f, 4, 0);
	fixture_tear_down(&f);
}

static void test_close(void)
{
	Fixture f;
	struct kml_record r;
	g_auto(IsdObject) o = { 0 };
	gint64 id;

	fixture_set_up(&f);
	id = make(&f, KML_CREATE, 20, f.root, "a");
	r = rec(&f, KML_CLOSE, 20, f.root, "a");
	r.attr.valid = KML_A_SIZE | KML_A_MTIME;
	r.attr.size = 1000;
	r.attr.mode = S_IFREG | 0777;
	apply(&f, &r);
	g_assert_true(get(&f, 20, &o));
	g_assert_cmpuint(o.attr.size, ==, 1000);
	g_assert_cmpuint(o.attr.mode, ==, S_IFREG | 0644);
	g_assert_cmpuint(o.cver, ==, 2);
	g_assert_cmpuint(o.aver, ==, 1);
	assert_counts(&f, 2, 1000);
	r = rec(&f, KML_CLOSE, 30, f.root, "a");
	r.flags = KML_F_REPLACED;
	r.has_old = true;
	r.old = oid(20);
	r.attr.size = 10;
	apply(&f, &r);
	g_assert_false(is_there(&f, 20));
	g_assert_true(get(&f, 30, &o));
	g_assert_cmpint(o.id, ==, id);
	g_assert_cmpuint(at(&f, ISD_ROOT_ID, "a"), ==, 30);
	assert_counts(&f, 2, 10);
	/* unlinked while open: nothing happens */
	r = rec(&f, KML_CLOSE, 99, f.root, "gone");
	apply(&f, &r);
	assert_counts(&f, 2, 10);
	fixture_tear_down(&f);
}

static void test_setattr(void)
{
	Fixture f;
	struct kml_record r;
	g_auto(IsdObject) o = { 0 };

	fixture_set_up(&f);
	make(&f, KML_CREATE, 20, f.root, "a");
	r = rec(&f, KML_SETATTR, 20, f.root, "a");
	r.attr.valid = KML_A_UID;
	r.attr.uid = 5;
	r.attr.gid = 6;
	r.attr.mode = S_IFREG | 0600;
	apply(&f, &r);
	g_assert_true(get(&f, 20, &o));
	g_assert_cmpuint(o.attr.uid, ==, 5);
	g_assert_cmpuint(o.attr.gid, ==, 0);
	g_assert_cmpuint(o.attr.mode, ==, S_IFREG | 0644);
	g_assert_cmpint(o.attr.mtime.sec, ==, 1);
	g_assert_cmpint(o.attr.ctime.sec, ==, 2);
	g_assert_cmpuint(o.aver, ==, 2);
	g_assert_cmpuint(o.cver, ==, 1);
	fixture_tear_down(&f);
}

static struct kml_record xattr_rec(Fixture *f, unsigned int opcode, const char *name,
				   const char *value, char *buf, gsize size)
{
	struct kml_record r = rec(f, opcode, 20, f->root, "a");

	r.attr.valid = KML_A_MODE;
	r.xattrs = buf;
	r.xattrs_len = kml_xattr_put(buf, size, name, strlen(name), value, strlen(value));
	return r;
}

static void test_xattr(void)
{
	Fixture f;
	struct kml_record r;
	g_autoptr(GBytes) blob = NULL;
	char buf[256];
	struct kml_str name, value;
	gint64 id;
	size_t pos = 0;

	fixture_set_up(&f);
	id = make(&f, KML_CREATE, 20, f.root, "a");
	r = xattr_rec(&f, KML_SETXATTR, "user.b", "2", buf, sizeof(buf));
	apply(&f, &r);
	r = xattr_rec(&f, KML_SETXATTR, "user.a", "", buf, sizeof(buf));
	apply(&f, &r);
	assert_ok(isd_state_xattrs(f.s, id, &blob, E));
	g_assert_true(kml_xattr_next(g_bytes_get_data(blob, NULL), g_bytes_get_size(blob), &pos,
				     &name, &value));
	g_assert_cmpmem(name.ptr, name.len, "user.a", 6);
	g_assert_cmpuint(value.len, ==, 0);
	g_assert_true(kml_xattr_next(g_bytes_get_data(blob, NULL), g_bytes_get_size(blob), &pos,
				     &name, &value));
	g_assert_cmpmem(value.ptr, value.len, "2", 1);
	r = xattr_rec(&f, KML_REMOVEXATTR, "user.a", "", buf, sizeof(buf));
	apply(&f, &r);
	r = xattr_rec(&f, KML_REMOVEXATTR, "user.b", "", buf, sizeof(buf));
	apply(&f, &r);
	g_clear_pointer(&blob, g_bytes_unref);
	assert_ok(isd_state_xattrs(f.s, id, &blob, E));
	g_assert_null(blob);
	fixture_tear_down(&f);
}

static void test_client(void)
{
	Fixture f;
	struct kml_record r;
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) n = { 0 };
	gboolean found;

	fixture_set_up(&f);
	r = rec(&f, KML_CREATE, 20, f.root, "a");
	apply_client(&f, &r);
	g_assert_true(get(&f, 20, &o));
	g_assert_cmpuint(o.cver, ==, 0);
	g_assert_cmpuint(o.lcver, ==, 1);
	assert_ok(isd_state_lookup(f.s, ISD_ROOT_ID, "a", &n, &found, E));
	g_assert_cmpuint(n.ver, ==, 0);
	g_assert_cmpuint(n.lver, ==, 1);
	o.soid = (struct kml_oid) { 500, 1 };
	assert_ok(isd_state_put_object(f.s, &o, E));
	/* The server has it: it stays without a name, and its number can come again. */
	r = rec(&f, KML_UNLINK, 20, f.root, "a");
	apply_client(&f, &r);
	g_assert_cmpuint(at(&f, ISD_ROOT_ID, "a"), ==, 0);
	g_assert_true(is_there(&f, 20));
	r = rec(&f, KML_CREATE, 20, f.root, "b");
	apply_client(&f, &r);
	g_assert_true(get(&f, 20, &o));
	g_assert_cmpuint(o.soid.ino, ==, 0);
	isd_object_clear(&o);
	assert_ok(isd_state_by_soid(f.s, (struct kml_oid) { 500, 1 }, &o, &found, E));
	g_assert_true(found);
	g_assert_cmpuint(o.oid.ino, ==, 0);
	assert_ok(isd_state_drop_object(f.s, o.id, E));
	assert_counts(&f, 2, 0);
	/* The server has never seen this one. */
	r = rec(&f, KML_UNLINK, 20, f.root, "b");
	apply_client(&f, &r);
	assert_counts(&f, 1, 0);
	fixture_tear_down(&f);
}

static void test_origin(void)
{
	static const guint8 peer[16] = "peer", other[16] = "other";
	Fixture f;
	struct kml_record r;
	struct kml_oid own;
	g_auto(IsdObject) o = { 0 };
	gboolean found, by;
	guint64 n;

	fixture_set_up(&f);
	r = rec(&f, KML_CREATE, 20, f.root, "a");
	r.has_origin = true;
	memcpy(r.origin_replica, peer, 16);
	r.origin_recno = 900;
	r.origin_obj = (struct kml_oid) { 77, 8 };
	apply(&f, &r);
	assert_ok(isd_state_origin(f.s, peer, 900, &n, &own, &found, E));
	g_assert_true(found);
	g_assert_cmpuint(n, ==, 1);
	g_assert_cmpuint(own.ino, ==, 20);
	assert_ok(isd_state_origin(f.s, other, 900, &n, &own, &found, E));
	g_assert_false(found);
	assert_ok(isd_state_origin_object(f.s, peer, r.origin_obj, &o, &found, E));
	g_assert_true(found);
	g_assert_cmpuint(o.oid.ino, ==, 20);
	assert_ok(isd_state_last_by(f.s, peer, 1, &by, E));
	g_assert_true(by);
	assert_ok(isd_state_last_by(f.s, other, 1, &by, E));
	g_assert_false(by);
	assert_ok(isd_state_origin_forget_seen(f.s, peer, 900, 0, E));
	assert_ok(isd_state_last_by(f.s, peer, 1, &by, E));
	g_assert_true(by);
	/* The object goes: the answer to the repeated record stays. */
	r = rec(&f, KML_UNLINK, 20, f.root, "a");
	apply(&f, &r);
	isd_object_clear(&o);
	assert_ok(isd_state_origin_object(f.s, peer, (struct kml_oid) { 77, 8 }, &o, &found, E));
	g_assert_false(found);
	assert_ok(isd_state_origin(f.s, peer, 900, &n, &own, &found, E));
	g_assert_true(found);
	assert_ok(isd_state_origin_forget(f.s, peer, 900, E));
	assert_ok(isd_state_origin(f.s, peer, 900, &n, &own, &found, E));
	g_assert_false(found);
	fixture_tear_down(&f);
}

static void test_transactions(void)
{
	Fixture f;
	g_autoptr(GError) error = NULL;
	g_autofree char *text = NULL;
	guint64 n;

	fixture_set_up(&f);
	assert_ok(isd_state_begin(f.s, E));
	make(&f, KML_CREATE, 20, f.root, "a");
	isd_state_rollback(f.s);
	g_assert_false(is_there(&f, 20));
	assert_counts(&f, 1, 0);
	assert_ok(isd_state_get_u64(f.s, "local_recno", &n, E));
	g_assert_cmpuint(n, ==, 0);
	assert_ok(isd_state_begin(f.s, E));
	assert_ok(isd_state_begin(f.s, E));
	assert_ok(isd_state_set_text(f.s, "k", "v", E));
	isd_state_rollback(f.s);
	g_assert_false(isd_state_commit(f.s, &error));
	g_assert_error(error, ISD_ERROR, ISD_ERROR_FAILED);
	assert_ok(isd_state_get_text(f.s, "k", &text, E));
	g_assert_null(text);
	fixture_tear_down(&f);
}

/* A reader sees one position of the log, and nothing that is not committed. */
static void limit_pages(Fixture *f, gint64 pages)
{
	g_autofree char *sql = g_strdup_printf("PRAGMA max_page_count = %" G_GINT64_FORMAT, pages);

	g_assert_cmpint(sqlite3_exec(isd_state_db(f->s), sql, NULL, NULL, NULL), ==, SQLITE_OK);
}

/* Objects from `first` on in one transaction, until one does not fit. */
static gboolean fill(Fixture *f, guint64 first, guint n, GError **error)
{
	if (!isd_state_begin(f->s, error))
		return FALSE;
	for (guint i = 0; i < n; i++) {
		g_autofree char *name = g_strdup_printf("%0200" G_GUINT64_FORMAT, first + i);
		struct kml_record r = rec(f, KML_CREATE, first + i, f->root, name);

		if (!isd_state_apply(f->s, &r, TRUE, error)) {
			isd_state_rollback(f->s);
			return FALSE;
		}
	}
	return isd_state_commit(f->s, error);
}

/* A full disk: the error says so, nothing of it stays, and it goes on when there is room. */
static void test_full(void)
{
	Fixture f;
	guint64 recno;

	fixture_set_up(&f);
	make(&f, KML_CREATE, 100, f.root, "before");
	recno = f.recno;
	limit_pages(&f, 1);		/* as many as there are */
	for (int i = 0; i < 2; i++) {
		g_autoptr(GError) error = NULL;

		f.recno = recno;
		g_assert_false(fill(&f, 1000, 5000, &error));
		g_assert_error(error, ISD_ERROR, ISD_ERROR_NOSPC);
		g_assert_true(is_there(&f, 100));
		g_assert_false(is_there(&f, 1000));
	}
	limit_pages(&f, 1000000);
	f.recno = recno;
	assert_ok(fill(&f, 1000, 5000, E));
	fixture_reopen(&f);
	g_assert_true(is_there(&f, 100) && is_there(&f, 1000) && is_there(&f, 5999));
	fixture_tear_down(&f);
}

static void test_reader(void)
{
	Fixture f;
	g_autoptr(IsdState) ro = NULL;
	g_auto(IsdName) n = { 0 };
	gboolean found;
	guint64 recno;

	fixture_set_up(&f);
	assert_ok((ro = isd_state_open_ro(f.meta_fd, E)) != NULL);
	assert_ok(isd_state_begin(ro, E));
	assert_ok(isd_state_get_u64(ro, "local_recno", &recno, E));
	make(&f, KML_CREATE, 20, f.root, "a");
	assert_ok(isd_state_lookup(ro, ISD_ROOT_ID, "a", &n, &found, E));
	g_assert_false(found);
	assert_ok(isd_state_commit(ro, E));
	assert_ok(isd_state_lookup(ro, ISD_ROOT_ID, "a", &n, &found, E));
	g_assert_true(found);
	g_assert_false(isd_state_set_u64(ro, "x", 1, NULL));
	fixture_tear_down(&f);
}

static void test_list(void)
{
	Fixture f;
	g_autoptr(GArray) page = NULL;

	fixture_set_up(&f);
	make(&f, KML_CREATE, 22, f.root, "\377");
	make(&f, KML_CREATE, 20, f.root, "b");
	make(&f, KML_CREATE, 21, f.root, "a");
	assert_ok(isd_state_list(f.s, ISD_ROOT_ID, NULL, 2, &page, E));
	g_assert_cmpuint(page->len, ==, 2);
	g_assert_cmpstr(g_array_index(page, IsdName, 0).name, ==, "a");
	g_clear_pointer(&page, g_array_unref);
	assert_ok(isd_state_list(f.s, ISD_ROOT_ID, "b", 2, &page, E));
	g_assert_cmpuint(page->len, ==, 1);
	g_assert_cmpstr(g_array_index(page, IsdName, 0).name, ==, "\377");
	fixture_tear_down(&f);
}

static int base_fd(Fixture *f)
{
	return openat(f->meta_fd, "base", O_WRONLY | O_CREAT | O_APPEND, 0600);
}

static void test_base(void)
{
	Fixture f;
	struct kml_record r;
	g_autofree char *path = NULL;
	g_autoptr(GError) error = NULL;
	guint64 loaded;
	int fd;

	fixture_set_up(&f);
	fd = base_fd(&f);
	r = rec(&f, KML_MKDIR, 2, (struct kml_oid) { 0 }, NULL);
	r.obj = f.root;
	append_record(fd, &r);
	r = rec(&f, KML_MKDIR, 10, f.root, "d");
	append_record(fd, &r);
	r = rec(&f, KML_CREATE, 20, oid(10), "a");
	r.attr.size = 123;
	append_record(fd, &r);
	r = rec(&f, KML_LINK, 20, oid(10), "a");
	r.tparent = f.root;
	r.tname = str("b");
	append_record(fd, &r);
	g_assert_false(isd_state_load_base(f.s, f.meta_fd, &error));
	g_assert_error(error, ISD_ERROR, ISD_ERROR_FATAL);
	assert_ok(isd_state_get_u64(f.s, "base_loaded", &loaded, E));
	g_assert_cmpuint(loaded, ==, 0);
	r = (struct kml_record) { .opcode = KML_CATALOG_END, .recno = ++f.recno };
	append_record(fd, &r);
	assert_ok(isd_state_load_base(f.s, f.meta_fd, E));
	assert_counts(&f, 3, 123);
	g_assert_cmpuint(at(&f, ISD_ROOT_ID, "b"), ==, 20);
	assert_ok(isd_state_get_u64(f.s, "base_loaded", &loaded, E));
	g_assert_cmpuint(loaded, ==, 1);
	close(fd);
	fixture_tear_down(&f);
}

/* What is no database is told as such, and can be moved out of the way. */
static void test_damaged(void)
{
	Fixture f;
	g_autoptr(GError) error = NULL;
	int fd;

	fixture_set_up(&f);
	g_clear_pointer(&f.s, isd_state_close);
	fd = openat(f.meta_fd, "state.db", O_WRONLY | O_TRUNC);
	g_assert_cmpint(write(fd, "this is no database, but long enough for one", 44), ==, 44);
	close(fd);
	g_assert_null(isd_state_open(f.meta_fd, &error));
	g_assert_error(error, ISD_ERROR, ISD_ERROR_DAMAGED);
	assert_ok(isd_state_set_aside(f.meta_fd, E));
	fixture_reopen(&f);
	assert_ok(isd_state_load_base(f.s, f.meta_fd, E));
	g_assert_cmpint(faccessat(f.meta_fd, "state.db.damaged", F_OK, 0), ==, 0);
	fixture_tear_down(&f);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/state/root", test_root);
	g_test_add_func("/state/make", test_make);
	g_test_add_func("/state/repeated", test_repeated);
	g_test_add_func("/state/links", test_links);
	g_test_add_func("/state/rename", test_rename);
	g_test_add_func("/state/exchange", test_exchange);
	g_test_add_func("/state/close", test_close);
	g_test_add_func("/state/setattr", test_setattr);
	g_test_add_func("/state/xattr", test_xattr);
	g_test_add_func("/state/client", test_client);
	g_test_add_func("/state/origin", test_origin);
	g_test_add_func("/state/transactions", test_transactions);
	g_test_add_func("/state/full", test_full);
	g_test_add_func("/state/reader", test_reader);
	g_test_add_func("/state/list", test_list);
	g_test_add_func("/state/base", test_base);
	g_test_add_func("/state/damaged", test_damaged);
	return g_test_run();
}
