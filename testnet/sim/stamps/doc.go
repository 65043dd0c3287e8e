// Package stamps is node/stamps with its waits turned into events: numbers of the
// scopes' lines, questions for the largest, and barriers. The cores (keyspace/line)
// are the real ones; requests between nodes travel as values.
package stamps
