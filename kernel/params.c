// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Mount options.  Those of ours are few; what is not known here belongs to the
 * lower file system and is kept for it, in order.
 */
#include "intermezzo.h"

#include <linux/ctype.h>
#include <linux/fs_parser.h>

#define IZO_LOWER_PARAMS_MAX	64
#define IZO_CHANNEL_PREFIX	"/dev/intermezzo"

enum izo_opt {
	OPT_FILESET,
	OPT_CACHE_TYPE,
	OPT_LOWERDIR,
	OPT_CHANNEL,
	OPT_MTPT,
};

static const struct fs_parameter_spec izo_param_specs[] = {
	fsparam_string("fileset",	OPT_FILESET),
	fsparam_string("cache_type",	OPT_CACHE_TYPE),
	fsparam_string("lowerdir",	OPT_LOWERDIR),
	fsparam_string("channel",	OPT_CHANNEL),
	fsparam_string("prestodev",	OPT_CHANNEL),
	fsparam_string("mtpt",		OPT_MTPT),
	{}
};

static int take_string(struct fs_context *fc, char **member, struct fs_parameter *param)
{
	if (!*param->string)
		return invalfc(fc, "option %s needs a value", param->key);
	kfree(*member);
	*member = param->string;
	param->string = NULL;
	return 0;
}

static bool fileset_name_ok(const char *name)
{
	const char *c;

	if (!isalnum(name[0]) && name[0] != '_')
		return false;
	for (c = name; *c; c++)
		if (!isalnum(*c) && !strchr("._-", *c))
			return false;
	return c - name <= IZO_FSET_MAX;
}

static int take_fileset(struct fs_context *fc, struct izo_params *p, struct fs_parameter *param)
{
	if (!fileset_name_ok(param->string))
		return invalfc(fc, "fileset=%s: no name for a fileset", param->string);
	return take_string(fc, &p->fileset, param);
}

/* channel= and the prestodev= of old: /dev/intermezzoN, or N */
static int take_minor(struct fs_context *fc, struct izo_params *p, struct fs_parameter *param)
{
	const char *digits = param->string;
	unsigned int minor;

	if (str_has_prefix(digits, IZO_CHANNEL_PREFIX))
		digits += strlen(IZO_CHANNEL_PREFIX);
	if (!isdigit(*digits) || kstrtouint(digits, 10, &minor) || minor >= IZO_MINORS)
		return invalfc(fc, "%s=%s: must be " IZO_CHANNEL_PREFIX "0 to %d", param->key,
			       param->string, IZO_MINORS - 1);
	p->minor = minor;
	return 0;
}

static int keep_for_lower(struct fs_context *fc, struct izo_params *p,
			  struct fs_parameter *param)
{
	struct izo_lower_param *more;

	if (param->type != fs_value_is_flag && param->type != fs_value_is_string)
		return invalfc(fc, "option %s: a word or name=value is expected", param->key);
	if (p->n_lower == IZO_LOWER_PARAMS_MAX)
		return invalfc(fc, "too many options for the lower file system");
	more = krealloc_array(p->lower, p->n_lower + 1, sizeof(*more), GFP_KERNEL);
	if (!more)
		return -ENOMEM;
	p->lower = more;
	more += p->n_lower;
	more->key = kstrdup(param->key, GFP_KERNEL);
	if (!more->key)
		return -ENOMEM;
	more->value = NULL;
	if (param->type == fs_value_is_string) {
		more->value = param->string;
		param->string = NULL;
	}
	p->n_lower++;
	return 0;
}

static int izo_parse_param(struct fs_context *fc, struct fs_parameter *param)
{
	struct izo_sb *sbi = fc->s_fs_info;
	struct izo_params *p = &sbi->params;
	struct fs_parse_result result;
	int opt, err;

	err = vfs_parse_fs_param_source(fc, param);
	if (err != -ENOPARAM)
		return err;
	opt = fs_parse(fc, izo_param_specs, param, &result);
	if (opt == -ENOPARAM)
		return keep_for_lower(fc, p, param);
	if (opt < 0)
		return opt;
	switch (opt) {
	case OPT_FILESET:
		return take_fileset(fc, p, param);
	case OPT_CACHE_TYPE:
		return take_string(fc, &p->cache_type, param);
	case OPT_LOWERDIR:
		return take_string(fc, &p->lowerdir, param);
	case OPT_CHANNEL:
		return take_minor(fc, p, param);
	default:
		/* mtpt= says where it is mounted: fstab's business, not ours */
		return 0;
	}
}

static int izo_get_tree(struct fs_context *fc)
{
	return get_tree_nodev(fc, izo_fill_super);
}

void izo_free_params(struct izo_params *p)
{
	unsigned int k;

	for (k = 0; k < p->n_lower; k++) {
		kfree(p->lower[k].key);
		kfree(p->lower[k].value);
	}
	kfree(p->lower);
	kfree(p->fileset);
	kfree(p->cache_type);
	kfree(p->lowerdir);
}

/* What a superblock took over is not here any more. */
static void izo_free_fc(struct fs_context *fc)
{
	struct izo_sb *sbi = fc->s_fs_info;

	if (!sbi)
		return;
	izo_free_params(&sbi->params);
	kfree(sbi);
}

static const struct fs_context_operations izo_context_ops = {
	.free		= izo_free_fc,
	.parse_param	= izo_parse_param,
	.get_tree	= izo_get_tree,
	.reconfigure	= izo_reconfigure,
};

static int init_context(struct fs_context *fc, bool virtual)
{
	struct izo_sb *sbi = kzalloc(sizeof(*sbi), GFP_KERNEL);

	if (!sbi)
		return -ENOMEM;
	sbi->params.virtual = virtual;
	sbi->params.minor = -1;
	fc->s_fs_info = sbi;
	fc->ops = &izo_context_ops;
	return 0;
}

int izo_init_fs_context(struct fs_context *fc)
{
	return init_context(fc, false);
}

int izo_init_virtual_fs_context(struct fs_context *fc)
{
	return init_context(fc, true);
}
