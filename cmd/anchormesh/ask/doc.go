// Package ask is how commands ask nodes and print the answers: endpoints tried in
// turn, errors as one sentence, tables for people, JSON and YAML for programs.
//
// It knows no command. What is asked is the caller's.
package ask
