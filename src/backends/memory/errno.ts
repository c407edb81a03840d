/** The Linux error numbers that the model answers with; literal, because the host may be no Linux. */
export const ERRNO = {
  ENOENT: 2,
  ESRCH: 3,
  EAGAIN: 11,
  EFAULT: 14,
  EEXIST: 17,
  EINVAL: 22,
  EHWPOISON: 133,
} as const;
