import { type GicCommand, type GicRegister, GICD, GICR, GITS, ICC } from '../arm64/index.js';
import { KVM_DEV_ARM_CTRL } from '../linux/index.js';

/*
 * Registers and commands of a GIC by the names that the architecture and the kernel's headers give them, for
 * errors.
 */

const named = (prefix: string, offsets: Readonly<Record<string, number>>, offset: number): string => {
  const name = Object.entries(offsets).find(([, at]) => at === offset)?.[0];
  return name === undefined ? `${prefix}+0x${offset.toString(16)}` : `${prefix}_${name}`;
};

export function registerName(register: GicRegister): string {
  switch (register.group) {
    case 'NR_IRQS':
      return 'NR_IRQS';
    case 'ADDR':
      return `the base of ITS ${register.its}`;
    case 'ITS_REGS':
      return `${named('GITS', GITS, register.offset)} of ITS ${register.its}`;
    case 'DIST_REGS':
      return named('GICD', GICD, register.offset);
    case 'REDIST_REGS':
      return `${named('GICR', GICR, register.offset)} of vCPU ${register.vcpuId}`;
    case 'LEVEL_INFO':
      return `LEVEL_INFO from INTID ${register.intid} on of vCPU ${register.vcpuId}`;
    case 'CPU_SYSREGS': {
      const name = Object.entries(ICC).find(([field, first]) => {
        const count = field.startsWith('ap') ? 4 : 1;
        return register.register >= first && register.register < first + count;
      });
      const series = name?.[0].startsWith('ap') ? String(register.register - name[1]) : '';
      return `ICC_${name?.[0].toUpperCase() ?? register.register}${series}_EL1 of vCPU ${register.vcpuId}`;
    }
    default:
      return register satisfies never;
  }
}

export function commandName(command: GicCommand): string {
  const name = Object.entries(KVM_DEV_ARM_CTRL).find(([, number]) => number === command.attribute)?.[0];
  const whose = command.device === 'gic' ? 'the GIC' : `ITS ${command.its}`;
  return `${name ?? `command ${command.attribute}`} of ${whose}`;
}
