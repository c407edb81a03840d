/** Signals by which a program is asked to end: Ctrl-C, Ctrl-\\, a terminal that is closed, kill(1). */
export const ENDING_SIGNALS = ['SIGINT', 'SIGQUIT', 'SIGHUP', 'SIGTERM'] as const;
