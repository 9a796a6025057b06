/* Every command of `brigade`: one function a file, argv[0] being the command's own name. Returns the exit code:
 * 0 done, 1 failed (one line on stderr), 2 bad usage. */
#ifndef BRIGADE_COORDINATOR_CLI_COMMANDS_H
#define BRIGADE_COORDINATOR_CLI_COMMANDS_H

int command_bench(int argc, char **argv);
int command_bench_serve(int argc, char **argv); /* of `bench --serve` */
int command_chat(int argc, char **argv);
int command_detokenize(int argc, char **argv);
int command_doctor(int argc, char **argv);
int command_init(int argc, char **argv);
int command_inspect(int argc, char **argv);
int command_invite(int argc, char **argv);
int command_keygen(int argc, char **argv);
int command_logits(int argc, char **argv);
int command_nodes(int argc, char **argv);
int command_perplexity(int argc, char **argv);
int command_plan(int argc, char **argv);
int command_quantize(int argc, char **argv);
int command_revoke(int argc, char **argv);
int command_run(int argc, char **argv);
int command_serve(int argc, char **argv);
int command_drain(int argc, char **argv);
int command_rebalance(int argc, char **argv);
int command_status(int argc, char **argv);
int command_tokenize(int argc, char **argv);
int command_top(int argc, char **argv);

#endif
