/**
 * What an operation returns: 0, or minus an errno, exactly as the ioctl of the same name would.
 * A positive number never occurs except from `signalMsi`, where 1 means delivered.
 */
export type Status = number;

export const ENXIO = 6;
export const EFAULT = 14;
export const EBUSY = 16;
export const EEXIST = 17;
export const EINVAL = 22;
