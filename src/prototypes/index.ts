export { defineUapi, type Uapi, type UapiBackend, type UapiUse } from './uapi.js';
export {
  type CConstant,
  type CField,
  type CIoctl,
  type CStruct,
  type CType,
  type KernelSide,
  type Surroundings,
  type UapiDefinition,
  type UapiSource,
} from './definition.js';
export {
  broughtBeforeWaiting,
  balloonInPostCopy,
  HAZARDS,
  lateMissing,
  tornWhileBrought,
  zeroWhileBrought,
} from './hazards.js';
export { evaluate, type EvaluateOptions, type UapiEvaluation } from './evaluate.js';
export { byUserfaultfd, throughMapping } from './contents.js';
export { ioctlNumber, layOut } from './c-layout.js';
export { coverageHead, coverageRow } from './plain-text.js';
export { UapiAttachment, UapiStepping } from './uapi-attachment.js';
export { GfnBitmap, type GfnBitmapOptions } from './gfn-bitmap.js';
export { before, KERNEL_SITES, VCPU_SITES } from './vcpu-sites.js';
export { presentBitmap, type PresentBitmapOptions } from './present-bitmap.js';
export { exitOnMissing, type ExitOnMissingOptions } from './exit-on-missing.js';
export { kvmUserfault, type KvmUserfaultOptions } from './kvm-userfault.js';
export { asyncPf, type AsyncPfOptions } from './async-pf.js';
export { userfaultfdModel, userfaultfdRwpModel, type UserfaultfdModelOptions } from './userfaultfd.js';
export { memslotHole, vacatedSlot, type HoleOptions, type SlotOptions } from './vacated-slot.js';
export { fileUffd } from './file-uffd.js';
