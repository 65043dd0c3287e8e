// Package bolt is the ordered store below a scope's state.
package bolt
