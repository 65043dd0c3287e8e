// Package classes is node/classes with its waits turned into events: nodes tell the
// leaders of replicas that may have forgotten something, and of those that are on disk
// since their segment is light no more. Nothing is told to keepers: a light segment loses
// no majority here.
package classes
