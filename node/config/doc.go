// Package config is the configuration of one node: what every flag of
// `anchormesh serve` and `anchormesh dev` means, where its value comes from and
// which values are refused.
//
// One value is looked for in four places, the first that has it wins:
//
//	flag  >  ANCHORMESH_<FLAG> in the environment  >  YAML file (--config)  >  default
//
// The YAML file is flat and its fields are the flags' names, as in etcd. A field
// that no flag has is refused with its name and line: a misspelt limit must not
// be a silent default. Every source goes through the flag's own parser, so a
// value means the same wherever it stands. What etcd also has keeps etcd's name
// and default.
//
// Guarantees: Validate changes nothing, reports every problem at once and each in
// one sentence that names its flag. Nothing here listens, dials or writes, except
// NewMeshKeyFile, which says so.
//
// Concurrency: values only; not safe for concurrent writing.
package config
