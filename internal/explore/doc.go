// Package explore walks every state that a small model of a protocol can reach and
// says how a broken rule is reached. Tests use it on pure cores: what a simulator
// with seeds samples, it exhausts.
//
// # Guarantees
//
//   - Breadth first: the trace of a violation is a shortest one.
//   - A state is visited once. States are told apart by 128 bits of the SHA-256 of
//     the key that the model gives them, so a key must hold everything that the
//     future depends on, in one canonical form.
//   - With [Model.Settled], every state found must be able to reach a settled one by
//     steps that are no faults. Together with fairness (a step that stays possible is
//     taken one day) this says that what was begun ends once faults stop.
//   - The same model gives the same report. Nothing here reads a clock or draws.
//
// # What it does not do
//
// It reduces nothing (no symmetry, no partial order): models have to be small. It
// stops with [ErrTooLarge] at the model's limit, which is a failure, never a pass.
package explore
