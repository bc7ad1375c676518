"""The runtime of ensembles: what all methods share. Each package imports only those above it.

======================  ===========================================================================
errors                  typed errors
rng                     noise keyed by seed, position and token bytes
concurrency             structured waiting
call_context            context variables of a request and its calls
types                   data classes that cross packages and processes
config                  configuration of members, engines, ensembles and auxiliary models
artifacts               exports of training: file format, perceptrons, routers, hot reload
data                    question sets, grading, query log
tokenization            one tokenizer with exact bytes, chat templates, split points
text                    words, stop strings, offsets, token contexts, drafts
weights                 names of weights resolved to checkpoint folders
observability           metrics, logs, traces
engines                 the engine protocol; scripted, transformers and vLLM engines
vocab                   vocabularies of several models: alignments, unions, embedding tables
calls                   messages, remote engines, batching, retries, budget and usage
encoders                text encoders
rewards                 process reward models
session                 one answer: members, membership, prompts, auxiliary models
coordinator             answers of one ensemble: checkpoints, resuming, trace log
======================  ===========================================================================
"""
