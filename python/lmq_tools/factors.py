"""Contributions of one batch to the statistics of a layer: token averages, and both sides of the maximum-likelihood fit.

H, the Fisher matrix of a layer per token, is approximated by F (x) S: F output side [rows, rows] in diagonal blocks of `block` rows,
S input side [columns, columns]. The fit (matrix-normal, Dutilleul 1999) alternates, with G_s the gradient of sequence s, T tokens:
  F <- sum_s G_s (S + dS)^-1 G_s^T / (T columns),   S <- sum_s G_s^T (F + dF)^-1 G_s / (T rows),   d = .01 of the mean diagonal.
Two roads give the same sums: G_s itself, or G_s = g^T x of rank R (the positions) left as it is; the cheaper is taken by its products.
"""
import torch
from torch.nn import functional

DAMPING = .01


def blocks_of(rows, block):
    return -(-rows // block)


def padded(values, block):
    """[..., rows] -> [..., blocks * block], zeros behind."""
    return functional.pad(values, (0, -values.shape[-1] % block))


def in_blocks(values, block):
    """[B, R, rows] -> [blocks, B * R, block]."""
    values = padded(values, block)
    return values.reshape(-1, values.shape[-1] // block, block).transpose(0, 1)


def symmetric(values):
    return (values + values.transpose(-1, -2)) / 2


def joined(uses):
    """(x [B, R1, columns], g [B, R1, rows]) of all dense uses together, (x, tokens) of all embeddings; None where there is none."""
    dense, picked = [u for u in uses if u.tokens is None], [u for u in uses if u.tokens is not None]
    return ((torch.cat([u.x for u in dense], 1), torch.cat([u.g for u in dense], 1)) if dense else None,
            (torch.cat([u.x for u in picked], 1), torch.cat([u.tokens for u in picked], 1)) if picked else None)


def gradient(layer, uses):
    """G [B, rows, columns]."""
    first = uses[0].x
    out = torch.zeros(first.shape[0], layer.rows, layer.columns, dtype=first.dtype)
    for use in uses:
        if use.tokens is None:
            out[:, use.at:use.at + use.g.shape[2]] += use.g.transpose(1, 2) @ use.x
        else:
            for b in range(len(out)):
                out[b].index_add_(0, use.tokens[b], use.x[b])
    return out


def whole_rows(layer, uses):
    return all(use.tokens is not None or use.g.shape[2] == layer.rows for use in uses)


def products(layer, uses, block):
    """Multiplications of both roads for one sequence: (of G itself, of rank R)."""
    m, n = layer.rows, layer.columns
    dense = sum(use.x.shape[1] for use in uses if use.tokens is None)
    rank = sum(use.x.shape[1] for use in uses)
    direct = dense * m * n + m * n * n + m * n * block
    low = rank * n * n + rank * rank * n + dense * dense * m + dense * m * block
    return direct, low


def by_rank(layer, uses, block):
    direct, low = products(layer, uses, block)
    return whole_rows(layer, uses) and low < direct


# ------------------------------------------------------------------------------------------------------ both sides

def outer(layer, uses, root, block):
    """sum_s G_s S^-1 G_s^T in diagonal blocks [blocks, block, block]; root [columns, columns] with root root^T = S^-1."""
    if not by_rank(layer, uses, block):
        turned = gradient(layer, uses) @ root
        turned = in_blocks(turned.transpose(1, 2), block)  # [blocks, B * columns, block]
        return turned.transpose(1, 2) @ turned
    dense, picked = joined(uses)
    turned = torch.cat([part[0] for part in (dense, picked) if part], 1) @ root
    kernel = turned @ turned.transpose(1, 2)  # [B, R, R]
    size = dense[0].shape[1] if dense else 0
    blocks = blocks_of(layer.rows, block)
    out = torch.zeros(blocks, block, block)
    if dense:
        g = dense[1]
        out += in_blocks(g, block).transpose(1, 2) @ in_blocks(kernel[:, :size, :size] @ g, block)
    if picked:
        add_picked(out, picked[1], kernel[:, size:, size:])
        if dense:
            add_cross(out, padded(dense[1], block), picked[1], kernel[:, size:, :size])
    return symmetric(out)


def add_picked(out, tokens, kernel):
    """out[block, i, j] += kernel[b, t, u] of tokens of one block."""
    block = out.shape[-1]
    for b in range(len(tokens)):
        owner, inside = tokens[b] // block, tokens[b] % block
        t, u = torch.nonzero(owner[:, None] == owner[None], as_tuple=True)
        out.view(-1).index_add_(0, (owner[t] * block + inside[t]) * block + inside[u], kernel[b, t, u])


def add_cross(out, g, tokens, kernel):
    """Both sides of one-hot^T kernel g: row tokens[b, t] gets kernel[b, t] @ g[b] of its block."""
    block = out.shape[-1]
    for b in range(len(tokens)):
        owner, inside = tokens[b] // block, tokens[b] % block
        for k in torch.unique(owner).tolist():
            mine = torch.nonzero(owner == k)[:, 0]
            rows = kernel[b, mine] @ g[b, :, k * block:(k + 1) * block]
            out[k].index_add_(0, inside[mine], rows)
            out[k].index_add_(1, inside[mine], rows.T)


def gram(layer, uses, inverse):
    """sum_s G_s^T F^-1 G_s [columns, columns]; inverse [blocks, block, block] of the blocks of F, or None for the identity."""
    block = inverse.shape[-1] if inverse is not None else layer.rows
    if not by_rank(layer, uses, block if inverse is not None else 0):
        whole = gradient(layer, uses)
        if inverse is None:
            whole = whole.reshape(-1, layer.columns)
            return whole.T @ whole
        cut = in_blocks(whole.transpose(1, 2), block)  # [blocks, B * columns, block]
        turned = (cut @ inverse).transpose(0, 1).reshape(len(whole), layer.columns, -1)[:, :, :layer.rows]
        return symmetric(torch.einsum("bnm,bmk->nk", turned, whole))
    dense, picked = joined(uses)
    x = torch.cat([part[0] for part in (dense, picked) if part], 1)
    kernel = row_kernel(layer, dense, picked, inverse, block)
    return symmetric(x.reshape(-1, layer.columns).T @ (kernel @ x).reshape(-1, layer.columns))


def row_kernel(layer, dense, picked, inverse, block):
    """g F^-1 g^T [B, R, R] over dense positions, then tokens."""
    parts = []
    if dense:
        g = dense[1]
        turned = g
        if inverse is not None:
            cut = in_blocks(g, block) @ inverse
            turned = cut.transpose(0, 1).reshape(g.shape[0], g.shape[1], -1)[:, :, :layer.rows]
        parts.append(turned @ g.transpose(1, 2))
    if not picked:
        return parts[0]
    tokens = picked[1]
    owner, inside = tokens // block, tokens % block
    same = owner[:, :, None] == owner[:, None]
    if inverse is None:
        corner = (tokens[:, :, None] == tokens[:, None]).float()
    else:
        corner = torch.where(same, inverse[owner[:, :, None], inside[:, :, None], inside[:, None]], torch.zeros(()))
    if not dense:
        return corner
    side = torch.gather(turned, 2, tokens[:, None].expand(-1, turned.shape[1], -1))  # [B, R1, tokens]
    return torch.cat([torch.cat([parts[0], side], 2), torch.cat([side.transpose(1, 2), corner], 2)], 1)


# ---------------------------------------------------------------------------------------------------- token averages

def plain_outer(layer, uses, block):
    """F without a fit: sum g g^T over positions in diagonal blocks, of an embedding sum_s G_s G_s^T."""
    if layer.embedding:
        return outer(layer, uses, torch.eye(layer.columns), block)
    out = torch.zeros(blocks_of(layer.rows, block), block, block)
    for use in uses:
        g = in_blocks(functional.pad(use.g, (use.at, layer.rows - use.at - use.g.shape[2])), block)
        out += g.transpose(1, 2) @ g
    return out


def averages(layer, uses):
    """Of a linear layer gram = sum x x^T, rows = sum g^2, positions; of an embedding (also a tied one) gram = sum_s G^T G and rows =
    its row sums of squared gradients."""
    if layer.embedding:
        return {"gram": gram(layer, uses, None), "rows": squared_rows(layer, uses)}
    out = {"gram": torch.zeros(layer.columns, layer.columns), "rows": torch.zeros(layer.rows),
           "positions": torch.tensor([float(sum(use.x.shape[0] * use.x.shape[1] for use in uses))])}
    for use in uses:
        x = use.x.reshape(-1, layer.columns)
        out["gram"] += x.T @ x
        out["rows"][use.at:use.at + use.g.shape[2]] += use.g.square().sum((0, 1))
    return out


def squared_rows(layer, uses):
    if not by_rank(layer, uses, 0):
        return gradient(layer, uses).square().sum((0, 2))
    dense, picked = joined(uses)
    x = torch.cat([part[0] for part in (dense, picked) if part], 1)
    kernel = x @ x.transpose(1, 2)
    size = dense[0].shape[1] if dense else 0
    out = torch.zeros(layer.rows)
    if dense:
        g = dense[1]
        out += (g * (kernel[:, :size, :size] @ g)).sum((0, 1))
    if picked:
        tokens = picked[1]
        same = (tokens[:, :, None] == tokens[:, None]) * kernel[:, size:, size:]
        out.index_add_(0, tokens.reshape(-1), same.sum(2).reshape(-1))
        if dense:
            own = torch.gather(g, 2, tokens[:, None].expand(-1, size, -1))  # g[b, r, tokens[b, t]]
            out.index_add_(0, tokens.reshape(-1), 2 * (own * kernel[:, :size, size:]).sum(1).reshape(-1))
    return out


def squared_weights(layer, uses):
    """sum_s G_s^2 [rows, columns]."""
    out = torch.zeros(layer.rows, layer.columns)
    for b in range(uses[0].x.shape[0]):
        one = [type(use)(use.x[b:b + 1], None if use.g is None else use.g[b:b + 1],
                         None if use.tokens is None else use.tokens[b:b + 1], use.at) for use in uses]
        out += gradient(layer, one)[0].square_()
    return out


# --------------------------------------------------------------------------------------------------------- inverses

def damped_cholesky(matrix, damping):
    """Lower factor of matrix + damping I; damping grows tenfold until there is one."""
    eye = torch.eye(matrix.shape[-1], dtype=torch.float64)
    for _ in range(8):
        factor, wrong = torch.linalg.cholesky_ex(matrix + damping * eye)
        if not wrong.any():
            return factor
        damping *= 10
    raise ArithmeticError("no Cholesky factor")


def root_of_inverse(gram_matrix):
    """float32 [columns, columns]: root root^T = (S + dS)^-1."""
    matrix = torch.as_tensor(gram_matrix, dtype=torch.float64)
    factor = damped_cholesky(matrix, DAMPING * matrix.diagonal().mean())
    eye = torch.eye(len(matrix), dtype=torch.float64)
    return torch.linalg.solve_triangular(factor, eye, upper=False).T.float().contiguous()


def inverse_of_blocks(outer_blocks, rows):
    """float32 [blocks, block, block]: (F + dF)^-1 of each block; dF from the mean diagonal of the whole layer."""
    matrix = torch.as_tensor(outer_blocks, dtype=torch.float64)
    mean = matrix.diagonal(dim1=1, dim2=2).sum() / rows
    factor = damped_cholesky(matrix, DAMPING * mean)
    return torch.cholesky_inverse(factor).float()
