// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The rules of POST reint (doc/protocol.md): compare-and-swap per object and
 * per name.  A record is turned from the client's words (the server's numbers, or its own)
 * into the paths, inodes and guards of this replica.
 */
#include "judge.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

void isd_deed_clear(IsdDeed *d)
{
	g_clear_pointer(&d->dir, g_free);
	g_clear_pointer(&d->tdir, g_free);
	g_clear_pointer(&d->name, g_free);
	g_clear_pointer(&d->file, g_free);
	g_clear_pointer(&d->aliases, g_bytes_unref);
	if (d->upload >= 0)
		close(d->upload);
	d->upload = -1;
}

/* Why, for those who debug. */
static int stale(const char *why)
{
	isd_debug(ISD_D_REINT, "stale: %s", why);
	return ESTALE;
}

static char *terminated(struct kml_str s)
{
	return g_strndup(s.ptr, s.len);
}

/* The client has seen this version, or made it. */
static int seen(IsdJudge *j, guint64 version)
{
	gboolean own;

	if (version <= j->base)
		return 0;
	if (!isd_state_last_by(j->core->state, j->peer, version, &own, &j->error))
		return ISD_JUDGE_BROKEN;
	return own ? 0 : stale("a change that the client has not seen");
}

static int seen_object(IsdJudge *j, const IsdObject *o)
{
	int err = seen(j, o->cver);

	return err ? err : seen(j, o->aver);
}

/* By our number, or by the client's own. */
static int find(IsdJudge *j, struct kml_oid oid, gboolean own, IsdObject *ret)
{
	gboolean found, ok;

	if (own)
		ok = isd_state_origin_object(j->core->state, j->peer, oid, ret, &found, &j->error);
	else
		ok = isd_state_by_oid(j->core->state, oid, ret, &found, &j->error);
	if (!ok)
		return ISD_JUDGE_BROKEN;
	if (found)
		return 0;
	stale("there is no such object");
	j->missing = oid;
	return EIDRM;
}

/* A directory that names are looked up in, and its path. */
static int find_dir(IsdJudge *j, struct kml_oid oid, gboolean own, struct kml_oid *ret_oid,
		    gint64 *ret_id, char **ret_path)
{
	g_auto(IsdObject) o = { 0 };
	int err = find(j, oid, own, &o);

	if (err)
		return err;
	if (!S_ISDIR(o.attr.mode))
		return stale("the parent is no directory");
	*ret_path = isd_state_path(j->core->state, o.id, NULL);
	if (!*ret_path)
		return stale("the parent has no path");
	*ret_oid = o.oid;
	*ret_id = o.id;
	return 0;
}

static int look_up(IsdJudge *j, gint64 parent, struct kml_str name, IsdName *ret,
		   gboolean *ret_found)
{
	g_autofree char *text = terminated(name);

	if (isd_state_lookup(j->core->state, parent, text, ret, ret_found, &j->error))
		return 0;
	return ISD_JUDGE_BROKEN;
}

static int use_parent(IsdJudge *j, const struct kml_record *r, IsdDeed *d)
{
	int err = find_dir(j, r->parent, r->ref_own & KML_REF_PARENT, &d->r.parent, &d->parent,
			   &d->dir);

	d->r.dir.ptr = d->dir;
	d->r.dir.len = d->dir ? strlen(d->dir) : 0;
	return err;
}

static int use_tparent(IsdJudge *j, const struct kml_record *r, IsdDeed *d)
{
	int err = find_dir(j, r->tparent, r->ref_own & KML_REF_TPARENT, &d->r.tparent, &d->tparent,
			   &d->tdir);

	d->r.tdir.ptr = d->tdir;
	d->r.tdir.len = d->tdir ? strlen(d->tdir) : 0;
	return err;
}

/* The object, under whatever name it has now; the root has none. */
static int use_object_anywhere(IsdJudge *j, const struct kml_record *r, IsdDeed *d, IsdObject *o)
{
	g_auto(IsdObject) dir = { 0 };
	IsdName n = { 0 };
	gboolean found = TRUE;
	int err = find(j, r->obj, r->ref_own & KML_REF_OBJ, o);

	if (err)
		return err;
	d->obj = o->id;
	d->r.obj = o->oid;
	d->r.name = (struct kml_str) { 0 };
	if (o->id == ISD_ROOT_ID) {
		d->dir = g_strdup("/");
		d->r.parent = (struct kml_oid) { 0 };
	} else {
		if (!isd_state_a_name(j->core->state, o->id, &n, &found, &j->error) ||
		    (found && !isd_state_by_id(j->core->state, n.parent, &dir, &found, &j->error)))
			return ISD_JUDGE_BROKEN;
		d->name = n.name;
		d->dir = found ? isd_state_path(j->core->state, n.parent, NULL) : NULL;
		if (!d->dir)
			return stale("the object has no name");
		d->parent = n.parent;
		d->r.parent = dir.oid;
		d->r.name = (struct kml_str) { d->name, strlen(d->name) };
	}
	d->r.dir = (struct kml_str) { d->dir, strlen(d->dir) };
	return 0;
}

/* The object, under its only name. */
static int use_object_alone(IsdJudge *j, const struct kml_record *r, IsdDeed *d, IsdObject *o,
			    guint64 *ret_version)
{
	g_auto(IsdName) n = { 0 };
	gboolean found;
	int err = use_object_anywhere(j, r, d, o);

	if (err)
		return err;
	if (!d->name || (o->attr.nlink > 1 && !S_ISDIR(o->attr.mode)))
		return stale("the object has several names");
	if (!isd_state_lookup(j->core->state, d->parent, d->name, &n, &found, &j->error))
		return ISD_JUDGE_BROKEN;
	*ret_version = n.ver;
	return 0;
}

/* The object, under the name that the client knows if it says one; nothing else will do. */
static int use_object_named(IsdJudge *j, const struct kml_record *r, IsdDeed *d, IsdObject *o,
			    guint64 *ret_version)
{
	g_auto(IsdName) n = { 0 };
	gboolean found;
	int err;

	if (!r->name.ptr && r->opcode != KML_LINK)
		return use_object_alone(j, r, d, o, ret_version);
	*ret_version = 0;
	if (!r->name.ptr)
		return use_object_anywhere(j, r, d, o);
	err = find(j, r->obj, r->ref_own & KML_REF_OBJ, o);
	if (!err)
		err = use_parent(j, r, d);
	if (!err)
		err = look_up(j, d->parent, r->name, &n, &found);
	if (err)
		return err;
	if (!found || n.id != o->id)
		return stale("the name is not that object");
	d->obj = o->id;
	d->r.obj = o->oid;
	*ret_version = n.ver;
	return 0;
}

/* The file in incoming/, locked so that no upload writes to it any more. */
static int use_upload(IsdJudge *j, const struct kml_record *r, IsdDeed *d, gboolean whole)
{
	static const char allowed[] = "0123456789abcdefghijklmnopqrstuvwxyz.-";
	g_autofree char *name = terminated(r->file);
	struct stat st;

	if (!*name || strlen(name) > 100 || strspn(name, allowed) != strlen(name))
		return EUCLEAN;
	d->file = g_strdup_printf("%s-%s", j->peer_text, name);
	d->upload = openat(j->core->incoming_fd, d->file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW |
			   O_NONBLOCK);
	if (d->upload < 0)
		return errno;
	if (flock(d->upload, LOCK_EX | LOCK_NB))
		return errno == EWOULDBLOCK ? EBUSY : errno;
	if (fstat(d->upload, &st))
		return errno;
	if (!S_ISREG(st.st_mode) || (whole && (guint64) st.st_size != r->attr.size))
		return EUCLEAN;
	d->r.file = (struct kml_str) { d->file, strlen(d->file) };
	return 0;
}

static int use_content(IsdJudge *j, const struct kml_record *r, IsdDeed *d)
{
	gboolean patch = r->opcode == KML_CLOSE && r->file.ptr && r->has_ranges &&
			 !(r->flags & KML_F_RANGES_ALL);

	if (r->data.ptr && (r->file.ptr || r->data.len != r->attr.size))
		return EUCLEAN;
	if (!r->file.ptr)
		return 0;
	if (patch)
		d->flags |= IZO_RE_PATCH;
	return use_upload(j, r, d, !patch);
}

static gboolean type_fits(const struct kml_record *r)
{
	switch (r->opcode) {
	case KML_CREATE:
		return S_ISREG(r->attr.mode);
	case KML_MKDIR:
		return S_ISDIR(r->attr.mode);
	case KML_SYMLINK:
		return S_ISLNK(r->attr.mode) && r->link.ptr && r->link.len;
	default:
		return S_ISCHR(r->attr.mode) || S_ISBLK(r->attr.mode) ||
		       S_ISFIFO(r->attr.mode) || S_ISSOCK(r->attr.mode);
	}
}

static int judge_make(IsdJudge *j, const struct kml_record *r, IsdDeed *d)
{
	g_auto(IsdName) n = { 0 };
	gboolean found;
	int err;

	if (!r->name.ptr || !r->has_attr || !type_fits(r) || !r->obj.ino ||
	    !(r->ref_own & KML_REF_OBJ))
		return EUCLEAN;
	err = use_parent(j, r, d);
	if (!err)
		err = look_up(j, d->parent, r->name, &n, &found);
	if (err)
		return err;
	if (found)
		return stale("the name is taken");
	if (r->opcode == KML_CREATE && !r->data.ptr && !r->file.ptr && r->attr.size)
		return EUCLEAN;
	d->r.obj = (struct kml_oid) { 0 };
	d->guard = isd_guard_absent();
	return use_content(j, r, d);
}

/* Writing and changing attributes do not meet: what the client has not seen stays. */
static int judge_close(IsdJudge *j, const struct kml_record *r, IsdDeed *d)
{
	g_auto(IsdObject) o = { 0 };
	int err;

	if (!r->has_attr || (!r->data.ptr && !r->file.ptr))
		return EUCLEAN;
	err = use_object_anywhere(j, r, d, &o);
	if (!err)
		err = S_ISREG(o.attr.mode) ? seen(j, o.cver) : stale("not a file");
	if (err)
		return err;
	err = seen(j, o.aver);
	if (err == ESTALE)
		d->r.attr.valid = KML_A_SIZE | KML_A_MTIME;
	else if (err)
		return err;
	d->guard = isd_guard_object(&o, IZO_G_CTIME | IZO_G_NOWRITER);
	if (!isd_state_aliases(j->core->state, &o, d->parent, d->name, &d->aliases, &j->error))
		return ISD_JUDGE_BROKEN;
	if (d->aliases)
		d->r.aliases = g_bytes_get_data(d->aliases, &d->r.aliases_len);
	return use_content(j, r, d);
}

/*
 * Mode, owner, xattrs.  A file that is being written here moves its ctime all the time, and that
 * is no reason to refuse: at the second try the log has just been taken in,
 * and what it says of the attributes is what counts.
 */
static int judge_attr(IsdJudge *j, const struct kml_record *r, gboolean again, IsdDeed *d)
{
	g_auto(IsdObject) o = { 0 };
	int err;

	if (r->opcode == KML_SETATTR ? !r->has_attr : !r->xattrs)
		return EUCLEAN;
	err = use_object_anywhere(j, r, d, &o);
	if (!err)
		err = seen(j, o.aver);
	d->guard = isd_guard_object(&o, again ? 0 : IZO_G_CTIME);
	return err;
}

static int judge_remove(IsdJudge *j, const struct kml_record *r, IsdDeed *d)
{
	g_auto(IsdObject) o = { 0 };
	guint64 version = 0;
	gboolean empty;
	int err = use_object_named(j, r, d, &o, &version);

	if (!err)
		err = seen_object(j, &o);
	if (!err)
		err = seen(j, version);
	if (err)
		return err;
	if (S_ISDIR(o.attr.mode) != (r->opcode == KML_RMDIR))
		return stale("of another type");
	if (r->opcode == KML_RMDIR) {
		if (!isd_state_is_empty_dir(j->core->state, o.id, &empty, &j->error))
			return ISD_JUDGE_BROKEN;
		if (!empty)
			return stale("the directory is not empty");
	}
	d->guard = isd_guard_object(&o, S_ISREG(o.attr.mode) ? IZO_G_CTIME | IZO_G_NOWRITER : 0);
	return 0;
}

/* What RENAME finds at the new name: it has to be what the client replaced. */
static int judge_target(IsdJudge *j, const struct kml_record *r, const IsdName *n, IsdDeed *d)
{
	g_auto(IsdObject) old = { 0 };
	gboolean exchange = r->flags & KML_F_EXCHANGE, empty;
	int err;

	if (!r->has_old || (r->flags & KML_F_NOREPLACE))
		return stale("the new name is taken");
	err = find(j, r->old, r->ref_own & KML_REF_OLD, &old);
	if (err)
		return err == EIDRM ? ESTALE : err;
	if (old.id != n->id || old.id == d->obj)
		return stale("the new name is another object than the replaced one");
	d->old = old.id;
	if (!exchange && S_ISDIR(old.attr.mode)) {
		if (!isd_state_is_empty_dir(j->core->state, old.id, &empty, &j->error))
			return ISD_JUDGE_BROKEN;
		if (!empty)
			return stale("the replaced directory is not empty");
	}
	if (!exchange) {
		err = seen_object(j, &old);
		if (!err)
			err = seen(j, n->ver);
	}
	d->tguard = isd_guard_object(&old, exchange || !S_ISREG(old.attr.mode) ? 0 :
				     IZO_G_CTIME | IZO_G_NOWRITER);
	return err;
}

/* What RENAME and LINK have in common: the object, and what is at the new name. */
static int use_both_names(IsdJudge *j, const struct kml_record *r, IsdDeed *d, IsdObject *o,
			  IsdName *ret_there, gboolean *ret_found)
{
	guint64 version;
	int err = use_object_named(j, r, d, o, &version);

	if (!err)
		err = r->tname.ptr ? use_tparent(j, r, d) : EUCLEAN;
	if (!err)
		err = look_up(j, d->tparent, r->tname, ret_there, ret_found);
	d->guard = isd_guard_object(o, 0);
	d->tguard = isd_guard_absent();
	return err;
}

/* Is the directory `path` dir/name, or below it? */
static gboolean is_inside(const char *path, const char *dir, struct kml_str name)
{
	g_autofree char *top = g_strdup_printf("%s/%.*s", strcmp(dir, "/") ? dir : "",
					       (int)name.len, name.ptr);
	gsize len = strlen(top);

	return g_str_has_prefix(path, top) && (!path[len] || path[len] == '/');
}

static int judge_rename(IsdJudge *j, const struct kml_record *r, IsdDeed *d)
{
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) n = { 0 };
	gboolean found = FALSE;
	int err = use_both_names(j, r, d, &o, &n, &found);

	if (err)
		return err;
	d->moves_dir = S_ISDIR(o.attr.mode) || (r->flags & KML_F_EXCHANGE);
	d->is_so = found && n.id == d->obj && !r->name.ptr;
	if (d->is_so)
		return 0;
	if (S_ISDIR(o.attr.mode) && is_inside(d->tdir, d->dir, d->r.name))
		return stale("the directory would be moved into itself");
	if (found)
		return judge_target(j, r, &n, d);
	return r->flags & KML_F_EXCHANGE ? stale("nothing to exchange with") : 0;
}

static int judge_link(IsdJudge *j, const struct kml_record *r, IsdDeed *d)
{
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) n = { 0 };
	gboolean found = FALSE;
	int err = use_both_names(j, r, d, &o, &n, &found);

	/* both have made the same link */
	d->is_so = !err && found && n.id == d->obj;
	if (!err && !d->is_so && (found || S_ISDIR(o.attr.mode)))
		return stale("the new name is taken");
	return err;
}

/* The record as it will be logged: whose it was, and nothing that is only the client's. */
static void begin_deed(IsdJudge *j, const struct kml_record *r, IsdDeed *d)
{
	memset(d, 0, sizeof(*d));
	d->upload = -1;
	d->r = *r;
	d->r.flags &= KML_F_EXCHANGE | KML_F_NOREPLACE | KML_F_RANGES_ALL;
	d->r.has_old = d->r.has_version = false;
	d->r.ref_own = 0;
	d->r.seq = 0;
	d->r.file = (struct kml_str) { 0 };
	d->r.aliases = NULL;
	d->r.aliases_len = 0;
	d->r.has_origin = true;
	memcpy(d->r.origin_replica, j->peer, 16);
	d->r.origin_recno = r->recno;
	d->r.origin_obj = r->ref_own & KML_REF_OBJ ? r->obj : (struct kml_oid) { 0 };
}

int isd_judge(IsdJudge *j, const struct kml_record *r, gboolean again, IsdDeed *ret)
{
	begin_deed(j, r, ret);
	switch (r->opcode) {
	case KML_CREATE:
	case KML_MKDIR:
	case KML_SYMLINK:
	case KML_MKNOD:
		return judge_make(j, r, ret);
	case KML_CLOSE:
		return judge_close(j, r, ret);
	case KML_SETATTR:
	case KML_SETXATTR:
	case KML_REMOVEXATTR:
		return judge_attr(j, r, again, ret);
	case KML_UNLINK:
	case KML_RMDIR:
		return judge_remove(j, r, ret);
	case KML_RENAME:
		return judge_rename(j, r, ret);
	case KML_LINK:
		return judge_link(j, r, ret);
	default:
		return EUCLEAN;
	}
}
